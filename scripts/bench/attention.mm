//! Attention and nothing else, for `make bench`: with T5's bias, in windows side by side, or in one that slides.
use mm::prelude::*;
use super::layers::relative_bias;

instances! { relative_bias { S = S, HEADS = HEADS } }

dims! { B, S = 512, HEADS = 8, HEAD = 64, WINDOW = 64 }

/// 0: with a bias; 1: segments of WINDOW tokens; 2: as many tokens to either side.
pub const KIND: i64 = 0;

#[derive(Module)]
pub struct Net {
    q: Param,
    k: Param,
    v: Param,
    relative_attention_bias: Embedding,
}

impl Net {
    pub fn new() -> Self {
        let gain = || Param::ones([HEAD]);
        Self { q: gain(), k: gain(), v: gain(), relative_attention_bias: relative_bias::table() }
    }
}

pub fn train(net: &Net, x: Tensor![B, S, HEADS, HEAD]) -> Tensor![; f32] {
    let (q, k, v) = (x * net.q, x * net.k, x * net.v);
    let seen = attend(q, k, v);
    // The table is read in all kinds, so that all have the same parameters.
    let bias = relative_bias::of_tokens(&net.relative_attention_bias);
    let out = if KIND == 0 {
        seen.bias(bias)
    } else if KIND == 1 {
        let window = iota(S, i64).floor_div(WINDOW) + 1;
        seen.segments(window, window)
    } else {
        seen.window(WINDOW, WINDOW)
    };
    out.cast(f32).square().mean()
}

pub fn plan(p: &mut Plan) {
    p.shard(B, "dp");
}
