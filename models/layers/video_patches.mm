//! A video as patches, and back.
use mm::prelude::*;

dims! {
    B, IN, OUT, F, H, W, DIM,                             // channels in and out, frames, rows, columns, the width of a token
    PF, PH, PW, FRAMES = F / PF, ROWS = H / PH, COLS = W / PW,
    L = FRAMES * ROWS * COLS,
    PIXELS = IN * PF * PH * PW, PATCH = PF * PH * PW * OUT,
}

/// A convolution whose stride is its kernel.
#[derive(Module)]
pub struct PatchEmbedding {
    weight: Param,
    bias: Param,
}

impl PatchEmbedding {
    pub fn new() -> Self {
        let reach = PIXELS.rsqrt();
        Self {
            weight: Param::uniform([DIM, IN, PF, PH, PW], -reach..reach),
            bias: Param::uniform([DIM], -reach..reach),
        }
    }

    pub fn forward(&self, x: Tensor![B, IN, F, H, W]) -> Tensor![B, L, DIM] {
        let patches = x.split(F, [FRAMES, PF]).split(H, [ROWS, PH]).split(W, [COLS, PW]);
        let patches = patches.transpose([B, FRAMES, ROWS, COLS, IN, PF, PH, PW]);
        let patches = patches.merge([FRAMES, ROWS, COLS], L).merge([IN, PF, PH, PW], PIXELS);
        patches.contract(self.weight.merge([IN, PF, PH, PW], PIXELS), [PIXELS]) + self.bias
    }
}

/// The video that patches make up.
pub fn video(patches: Tensor![B, L, PATCH]) -> Tensor![B, OUT, F, H, W] {
    let patches = patches.split(L, [FRAMES, ROWS, COLS]).split(PATCH, [PF, PH, PW, OUT]);
    let pixels = patches.transpose([B, OUT, FRAMES, PF, ROWS, PH, COLS, PW]);
    pixels.merge([FRAMES, PF], F).merge([ROWS, PH], H).merge([COLS, PW], W)
}
