//! Language models that see what came before: attention in groups of heads with norms of queries and keys, a gated
//! network, and the head over the vocabulary. The names are those of transformers.
use super::gated_mlp::{self, Mlp};
use super::rope::{self, Rope};
use mm::prelude::*;

dims! {
    B, S, VOCAB,                                          // samples, tokens of a sample
    LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD, FFN,
    Q = HEADS * HEAD, KV = KV_HEADS * HEAD,
}

instances! { rope { S, HEAD, THETA }, gated_mlp { HIDDEN, FFN } }

/// The head is the embedding's table.
pub const TIE: bool = false;
pub const EPS: f64 = 1e-6;
pub const THETA: f64 = 10_000.0;

#[derive(Module)]
pub struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: RmsNorm,
    k_norm: RmsNorm,
}

impl Attention {
    fn new() -> Self {
        Self {
            q_proj: projection(HIDDEN, Q),
            k_proj: projection(HIDDEN, KV),
            v_proj: projection(HIDDEN, KV),
            o_proj: projection(Q, HIDDEN),
            q_norm: norm(HEAD),
            k_norm: norm(HEAD),
        }
    }

    fn forward(&self, x: Tensor![B, S, HIDDEN], rope: Rope) -> Tensor![B, S, HIDDEN] {
        let q = self.q_norm.forward(self.q_proj.forward(x).split(Q, [HEADS, HEAD]));
        let k = self.k_norm.forward(self.k_proj.forward(x).split(KV, [KV_HEADS, HEAD]));
        let v = self.v_proj.forward(x).split(KV, [KV_HEADS, HEAD]);
        let seen = attend_causal(rope.rotate(q), rope.rotate(k), v);
        self.o_proj.forward(seen.merge([HEADS, HEAD], Q))
    }
}

#[derive(Module)]
pub struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

impl Layer {
    fn new() -> Self {
        Self {
            input_layernorm: norm(HIDDEN),
            self_attn: Attention::new(),
            post_attention_layernorm: norm(HIDDEN),
            mlp: Mlp::new(),
        }
    }

    /// The residual stays in f32, as PyTorch's autocast has it; a class that is loaded in bf16 has it in that.
    fn forward(&self, x: Tensor![B, S, HIDDEN; stream], rope: Rope) -> Tensor![B, S, HIDDEN; stream] {
        let seen = self.self_attn.forward(self.input_layernorm.forward(x).cast(work), rope);
        let x = x + seen.cast(stream);
        x + self.mlp.forward(self.post_attention_layernorm.forward(x).cast(work)).cast(stream)
    }
}

/// The layers between ids and the head.
#[derive(Module)]
pub struct Body {
    embed_tokens: Embedding,
    layers: Stack<Layer>,
    norm: RmsNorm,
}

impl Body {
    fn new() -> Self {
        let table = embedding(VOCAB, HIDDEN).init(normal(0.02)).keep(stream);
        Self {
            embed_tokens: if TIE { table.tied_to("lm_head.weight") } else { table },
            layers: stack(LAYERS, Layer::new),
            norm: norm(HIDDEN),
        }
    }

    pub fn forward(&self, ids: Tensor![B, S; i64]) -> Tensor![B, S, HIDDEN] {
        let rope = Rope::new();
        let x = self.layers.fold(self.embed_tokens.forward(ids), |x, layer| layer.forward(x, rope));
        self.norm.forward(x).cast(work)
    }
}

/// The body and the head: `model` and `lm_head` of a class that ends in `ForCausalLM`.
#[derive(Module)]
pub struct CausalLm {
    pub model: Body,
    lm_head: Option<Linear>,
}

impl CausalLm {
    pub fn new() -> Self {
        Self { model: Body::new(), lm_head: if TIE { None } else { Some(projection(HIDDEN, VOCAB)) } }
    }

    pub fn logits(&self, x: Tensor![.., HIDDEN]) -> Tensor![.., VOCAB; f32] {
        let logits = match &self.lm_head {
            Some(head) => head.forward(x),
            None => x.contract(self.model.embed_tokens.weight.cast(work), [HIDDEN]),
        };
        logits.cast(f32)
    }
}

fn projection(from: Size, to: Size) -> Linear {
    linear(from, to).no_bias().init(normal(0.02))
}

fn norm(dim: Size) -> RmsNorm {
    rms_norm(dim, EPS).rounded_first()
}
