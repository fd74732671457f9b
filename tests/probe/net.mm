//! A small transformer with all that is easy to get wrong: epsilons, rotations, biases, gates, residuals.
use mm::prelude::*;

dims! {
    B, S = 9, HEADS = 2, HEAD = 8, DIM = HEADS * HEAD, FFN = 40, PAIRS = HEAD / 2, VOCAB = 30, LAYERS = 3,
}

const THETA: f64 = 100.0;

#[derive(Module)]
pub struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    q_norm: RmsNorm,
    k_norm: RmsNorm,
}

impl Attention {
    fn new() -> Self {
        Self {
            q: linear(DIM, DIM),
            k: linear(DIM, DIM),
            v: linear(DIM, DIM),
            o: linear(DIM, DIM),
            q_norm: rms_norm(HEAD, 1e-6),
            k_norm: rms_norm(HEAD, 2e-6),
        }
    }

    fn forward(&self, x: Tensor![B, S, DIM]) -> Tensor![B, S, DIM] {
        let angles = (iota(S, f64) / powers(THETA, iota(PAIRS, f64) * 2.0 / HEAD.f64())).cast(f32);
        let (cos, sin) = (angles.cos(), angles.sin());
        let heads = |x: Tensor| x.split(DIM, [HEADS, HEAD]);
        let q = self.q_norm.forward(heads(self.q.forward(x))).rotate_halves(HEAD, cos, sin);
        let k = self.k_norm.forward(heads(self.k.forward(x))).rotate_halves(HEAD, cos, sin);
        let v = heads(self.v.forward(x));
        self.o.forward(attend_causal(q, k, v).merge([HEADS, HEAD], DIM))
    }
}

#[derive(Module)]
pub struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Mlp {
    fn forward(&self, x: Tensor![B, S, DIM]) -> Tensor![B, S, DIM] {
        self.down.forward(swiglu(self.gate.forward(x), self.up.forward(x)))
    }
}

#[derive(Module)]
pub struct Block {
    norm1: LayerNorm,
    attn: Attention,
    norm2: RmsNorm,
    mlp: Mlp,
}

impl Block {
    fn new() -> Self {
        let mlp = Mlp { gate: linear(DIM, FFN), up: linear(DIM, FFN), down: linear(FFN, DIM) };
        Self { norm1: layer_norm(DIM, 1e-5), attn: Attention::new(), norm2: rms_norm(DIM, 3e-6), mlp }
    }

    fn forward(&self, x: Tensor![B, S, DIM]) -> Tensor![B, S, DIM] {
        let x = x + self.attn.forward(self.norm1.forward(x));
        x + self.mlp.forward(self.norm2.forward(x))
    }
}

#[derive(Module)]
pub struct Net {
    embed: Embedding,
    enter: Linear,
    blocks: Stack<Block>,
    norm: LayerNorm,
    head: Linear,
}

impl Net {
    pub fn new() -> Self {
        Self {
            embed: embedding(VOCAB, DIM),
            enter: linear(DIM, DIM),
            blocks: stack(LAYERS, Block::new),
            norm: layer_norm(DIM, 4e-5),
            head: linear(DIM, VOCAB),
        }
    }
}

pub struct Out {
    pub logits: Tensor![B, S, VOCAB],
}

pub fn forward(net: &Net, ids: Tensor![B, S; i64]) -> Out {
    let x = net.enter.forward(net.embed.forward(ids).cast(work).gelu_tanh());
    let x = net.blocks.fold(x, |x, block| block.forward(x));
    Out { logits: net.head.forward(net.norm.forward(x)) }
}
