//! What a diffusion transformer is told: the time, a text, and a picture as an encoder sees it. The names are those of
//! diffusers' `WanTimeTextImageEmbedding`.
use mm::prelude::*;

dims! {
    B, S, TEXT, DIM,                                      // samples, tokens of the text, their width, that of the blocks
    FREQ = 256, WAVES = FREQ / 2,                         // channels of the time's sinusoids
    SIX = 6, SIX_DIM = SIX * DIM,
    IMAGE = 0, IMAGE_TOKENS = 257,                        // channels and tokens of the picture; 0 channels are none
    TWO = 2,
}

pub const THETA: f64 = 10_000.0;

#[derive(Module)]
pub struct Pair {
    #[alias = "0"]
    linear_1: Linear,
    #[alias = "2"]
    linear_2: Linear,
}

/// The encoded picture in the width of the blocks.
#[derive(Module)]
pub struct PictureEmbedding {
    #[alias = "proj.0"]
    norm1: LayerNorm,
    #[name = "ff.net.0.proj"]
    #[alias = "proj.1"]
    up: Linear,
    #[name = "ff.net.2"]
    #[alias = "proj.3"]
    down: Linear,
    #[alias = "proj.4"]
    norm2: LayerNorm,
}

impl PictureEmbedding {
    pub fn new() -> Self {
        Self {
            norm1: layer_norm(IMAGE, 1e-5),
            up: linear(IMAGE, IMAGE),
            down: linear(IMAGE, DIM),
            norm2: layer_norm(DIM, 1e-5),
        }
    }

    pub fn forward(&self, picture: Tensor![B, IMAGE_TOKENS, IMAGE]) -> Tensor![B, IMAGE_TOKENS, DIM] {
        let x = self.up.forward(self.norm1.forward(picture));
        self.norm2.forward(self.down.forward(0.5 * x * (1.0 + (x * TWO.rsqrt()).erf())))
    }
}

#[derive(Module)]
pub struct Conditions {
    #[alias = "time_embedding"]
    pub time_embedder: Pair,
    #[alias = "time_projection.1"]
    pub time_proj: Linear,
    #[alias = "text_embedding"]
    text_embedder: Pair,
    #[alias = "img_emb"]
    image_embedder: Option<PictureEmbedding>,
}

impl Conditions {
    pub fn new() -> Self {
        Self {
            time_embedder: Pair { linear_1: linear(FREQ, DIM).keep(f32), linear_2: linear(DIM, DIM).keep(f32) },
            time_proj: linear(DIM, SIX_DIM),
            text_embedder: Pair { linear_1: linear(TEXT, DIM), linear_2: linear(DIM, DIM) },
            image_embedder: if IMAGE > 0 { Some(PictureEmbedding::new()) } else { None },
        }
    }

    /// The time's embedding, in f32 up to its end. `t` is 0 to 1000.
    pub fn time(&self, t: Tensor![B, ..; f32]) -> Tensor![B, .., DIM] {
        let frequencies = (iota(WAVES, f32) * -THETA.ln() / WAVES.f64()).exp();
        let angles = (t * frequencies).rename(WAVES, FREQ);
        let waves = concat(FREQ, [angles.cos(), angles.sin()]);
        self.time_embedder.linear_2.forward(self.time_embedder.linear_1.forward(waves).silu()).cast(work)
    }

    pub fn picture(&self, picture: Option<Tensor![B, IMAGE_TOKENS, IMAGE]>) -> Option<Tensor![B, IMAGE_TOKENS, DIM]> {
        match (&self.image_embedder, picture) {
            (Some(embedder), Some(picture)) => Some(embedder.forward(picture)),
            _ => None,
        }
    }

    pub fn text(&self, text: Tensor![B, S, TEXT]) -> Tensor![B, S, DIM] {
        self.text_embedder.linear_2.forward(self.text_embedder.linear_1.forward(text).gelu_tanh())
    }
}
