//! Blocks of diffusion transformers: attention to itself and to a text, and a network, each part shifted, scaled and
//! gated by the time. The names are those of diffusers.
use super::grid_rope::Rope;
use mm::prelude::*;

dims! {
    B, L, S,                                              // samples, tokens of a sample and of its text
    DIM, HEADS, HEAD, FFN,
    IMAGE_TOKENS = 257,                                   // tokens of the encoded picture
    ONE = 1, SIX = 6,                                     // shift, scale and gate of two parts
    TIMES = 2,                                            // where a sample has two times, of which each token has one
    T: free,
}

/// Blocks attend to the encoded picture, too.
pub const PICTURE: bool = false;
pub const EPS: f64 = 1e-6;

#[derive(Module)]
pub struct Attention {
    #[name = "to_q"]
    #[alias = "q"]
    q: Linear,
    #[name = "to_k"]
    #[alias = "k"]
    k: Linear,
    #[name = "to_v"]
    #[alias = "v"]
    v: Linear,
    #[name = "to_out.0"]
    #[alias = "o"]
    o: Linear,
    norm_q: RmsNorm,
    norm_k: RmsNorm,
    #[name = "add_k_proj"]
    #[alias = "k_img"]
    picture_k: Option<Linear>,
    #[name = "add_v_proj"]
    #[alias = "v_img"]
    picture_v: Option<Linear>,
    #[name = "norm_added_k"]
    #[alias = "norm_k_img"]
    picture_norm: Option<RmsNorm>,
}

impl Attention {
    /// With `picture`, keys and values of the encoded picture beside those of the text.
    pub fn new(picture: bool) -> Self {
        Self {
            q: linear(DIM, DIM),
            k: linear(DIM, DIM),
            v: linear(DIM, DIM),
            o: linear(DIM, DIM),
            norm_q: rms_norm(DIM, EPS),
            norm_k: rms_norm(DIM, EPS),
            picture_k: if picture { Some(linear(DIM, DIM)) } else { None },
            picture_v: if picture { Some(linear(DIM, DIM)) } else { None },
            picture_norm: if picture { Some(rms_norm(DIM, EPS)) } else { None },
        }
    }

    /// `x` attends to `to`; with `rope`, both are placed on the video grid.
    pub fn forward(&self, x: Tensor![B, L, DIM], to: Tensor![B, T, DIM], rope: Option<Rope>) -> Tensor![B, L, DIM] {
        let heads = |t: Tensor| t.split(DIM, [HEADS, HEAD]);
        let mut q = heads(self.norm_q.forward(self.q.forward(x)));
        let mut k = heads(self.norm_k.forward(self.k.forward(to)));
        let v = heads(self.v.forward(to));
        if let Some(rope) = rope {
            (q, k) = (rope.rotate(q, L), rope.rotate(k, T));
        }
        self.o.forward(attend(q, k, v).merge([HEADS, HEAD], DIM))
    }

    /// `x` attends to the text and, apart from it, to the picture. The published class takes the last 512 tokens of both for
    /// the text: with a picture, S is 512.
    pub fn to_context(
        &self,
        x: Tensor![B, L, DIM],
        text: Tensor![B, S, DIM],
        picture: Option<Tensor![B, IMAGE_TOKENS, DIM]>,
    ) -> Tensor![B, L, DIM] {
        let heads = |t: Tensor| t.split(DIM, [HEADS, HEAD]);
        let q = heads(self.norm_q.forward(self.q.forward(x)));
        let k = heads(self.norm_k.forward(self.k.forward(text)));
        let seen = attend(q, k, heads(self.v.forward(text)));
        let seen = match (&self.picture_k, &self.picture_v, &self.picture_norm, picture) {
            (Some(to_k), Some(to_v), Some(norm), Some(picture)) => {
                let k = heads(norm.forward(to_k.forward(picture)));
                seen + attend(q, k, heads(to_v.forward(picture)))
            }
            _ => seen,
        };
        self.o.forward(seen.merge([HEADS, HEAD], DIM))
    }
}

#[derive(Module)]
pub struct Block {
    #[name = "scale_shift_table"]
    #[alias = "modulation"]
    modulation: Param,
    #[alias = "self_attn"]
    attn1: Attention,
    #[alias = "cross_attn"]
    attn2: Attention,
    #[alias = "norm3"]
    norm2: LayerNorm,
    #[name = "ffn.net.0.proj"]
    #[alias = "ffn.0"]
    up: Linear,
    #[name = "ffn.net.2"]
    #[alias = "ffn.2"]
    down: Linear,
}

impl Block {
    pub fn new() -> Self {
        Self {
            modulation: Param::normal([ONE, SIX, DIM], DIM.rsqrt()).keep(f32),
            attn1: Attention::new(false),
            attn2: Attention::new(PICTURE),
            norm2: layer_norm(DIM, EPS),
            up: linear(DIM, FFN),
            down: linear(FFN, DIM),
        }
    }

    /// `time` is [B, SIX, DIM]; or by token; or for two times, of which each token has one, as `of_token` says.
    pub fn forward(
        &self,
        x: Tensor![B, L, DIM],
        time: Tensor![B, .., SIX, DIM],
        of_token: Option<Tensor![B, L; bool]>,
        text: Tensor![B, S, DIM],
        picture: Option<Tensor![B, IMAGE_TOKENS, DIM]>,
        rope: Rope,
    ) -> Tensor![B, L, DIM] {
        let modulation = self.modulation.squeeze(ONE) + time;
        let [shift_a, scale_a, gate_a, shift_f, scale_f, gate_f] =
            modulation.unstack(SIX).map(|m: Tensor| by_token(m, of_token));
        let a = x.in_f32(|x| x.normalize(DIM, EPS) * (1.0 + scale_a) + shift_a);
        let x = x.in_f32(|x| x + self.attn1.forward(a, a, Some(rope)) * gate_a);
        let x = x + self.attn2.to_context(self.norm2.forward(x), text, picture);
        let f = x.in_f32(|x| x.normalize(DIM, EPS) * (1.0 + scale_f) + shift_f);
        x.in_f32(|x| x + self.down.forward(self.up.forward(f).gelu_tanh()) * gate_f)
    }
}

/// Of two values a sample, each token's own.
pub fn by_token(m: Tensor, of_token: Option<Tensor>) -> Tensor {
    match of_token {
        Some(moving) => select(moving, m.at(TIMES, 1), m.at(TIMES, 0)),
        None => m,
    }
}
