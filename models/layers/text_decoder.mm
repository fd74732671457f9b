//! Language models that see what came before: attention in groups of heads with norms of queries and keys, a gated
//! network or a mixture of them, and the head over the vocabulary. The names are those of transformers.
use super::gated_mlp::{self, Mlp};
pub use super::moe::{self, Balance, Moe};
pub use super::rope::{self, Rope};
use mm::prelude::*;

dims! {
    B, S, VOCAB,                                          // samples, tokens of a sample
    LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD, FFN,
    Q = HEADS * HEAD, KV = KV_HEADS * HEAD,
    EXPERTS = 0, CHOSEN = 0, INNER = 0,                   // of a mixture, where layers have one: see layers/moe.mm
}

instances! {
    rope { S, HEAD, THETA },
    gated_mlp { HIDDEN, FFN },
    moe { S, HIDDEN, EXPERTS, CHOSEN, INNER, NORMALIZED },
}

/// The head is the embedding's table.
pub const TIE: bool = false;
pub const EPS: f64 = 1e-6;
pub const THETA: f64 = 10_000.0;
/// Layers with one network, although others have a mixture.
pub const DENSE: &[i64] = &[];
/// Of so many layers, the last one has a mixture.
pub const SPARSE_STEP: i64 = 1;
/// The weights of a token's experts add up to 1.
pub const NORMALIZED: bool = false;

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

    /// Tokens see those before them, of their own segment if there are any.
    fn forward(
        &self,
        x: Tensor![B, S, HIDDEN],
        rope: Rope,
        segments: Option<Tensor![B, S; i64]>,
    ) -> Tensor![B, S, HIDDEN] {
        let q = self.q_norm.forward(self.q_proj.forward(x).split(Q, [HEADS, HEAD]));
        let k = self.k_norm.forward(self.k_proj.forward(x).split(KV, [KV_HEADS, HEAD]));
        let v = self.v_proj.forward(x).split(KV, [KV_HEADS, HEAD]);
        let seen = match segments {
            None => attend_causal(rope.rotate(q), rope.rotate(k), v),
            Some(of) => attend_causal(rope.rotate(q), rope.rotate(k), v).segments(of, of),
        };
        self.o_proj.forward(seen.merge([HEADS, HEAD], Q))
    }
}

#[derive(Module)]
pub struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Option<Mlp>,
    #[name = "mlp"]
    mixture: Option<Moe>,
}

impl Layer {
    fn new(mixed: bool) -> Self {
        Self {
            input_layernorm: norm(HIDDEN),
            self_attn: Attention::new(),
            post_attention_layernorm: norm(HIDDEN),
            mlp: if mixed { None } else { Some(Mlp::new()) },
            mixture: if mixed { Some(Moe::new()) } else { None },
        }
    }

    /// The residual stays in f32, as PyTorch's autocast has it; a class that is loaded in bf16 has it in that.
    fn forward(
        &self,
        x: Tensor![B, S, HIDDEN; stream],
        rope: Rope,
        segments: Option<Tensor![B, S; i64]>,
    ) -> Tensor![B, S, HIDDEN; stream] {
        let seen = self.self_attn.forward(self.input_layernorm.forward(x).cast(work), rope, segments);
        let x = x + seen.cast(stream);
        let inner = self.post_attention_layernorm.forward(x).cast(work);
        match (&self.mlp, &self.mixture) {
            (Some(mlp), _) => x + mlp.forward(inner).cast(stream),
            (_, Some(mixture)) => x + mixture.forward(inner).cast(stream),
            _ => x,
        }
    }

    /// With what the balance of experts is when this layer is counted, too.
    fn balanced(
        &self,
        x: Tensor![B, S, HIDDEN; stream],
        balance: Balance,
        rope: Rope,
        segments: Option<Tensor![B, S; i64]>,
    ) -> (Tensor, Balance) {
        let Some(mixture) = &self.mixture else { return (self.forward(x, rope, segments), balance) };
        let seen = self.self_attn.forward(self.input_layernorm.forward(x).cast(work), rope, segments);
        let x = x + seen.cast(stream);
        let (y, routing) = mixture.routed(self.post_attention_layernorm.forward(x).cast(work));
        (x + y.cast(stream), balance.and(routing, segments.map(counted)))
    }
}

/// 1 where a token is no padding.
fn counted(segments: Tensor![B, S; i64]) -> Tensor![B, S; f32] {
    segments.gt(0).cast(f32)
}

/// Whether a layer has a mixture of experts.
pub fn is_mixed(layer: i64) -> bool {
    EXPERTS > 0 && (layer + 1) % SPARSE_STEP == 0 && !DENSE.contains(&layer)
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
            layers: stack_at(LAYERS.range(), |layer: i64| Layer::new(is_mixed(layer))),
            norm: norm(HIDDEN),
        }
    }

    /// `segments` is the class's `attention_mask`: 0 is padding, and equal numbers see each other.
    pub fn forward(&self, ids: Tensor![B, S; i64], segments: Option<Tensor![B, S; i64]>) -> Tensor![B, S, HIDDEN] {
        let rope = Rope::new();
        let x = self.layers.fold(self.embed_tokens.forward(ids), |x, layer| layer.forward(x, rope, segments));
        self.norm.forward(x).cast(work)
    }

    /// With the loss that balances the experts of all layers over all tokens but padding.
    pub fn balanced(&self, ids: Tensor![B, S; i64], segments: Option<Tensor![B, S; i64]>) -> (Tensor, Tensor) {
        let rope = Rope::new();
        let none = Balance::new();
        let first = (self.embed_tokens.forward(ids), none.sent, none.likely);
        let (x, sent, likely) = self.layers.fold(first, |(x, sent, likely), layer: &Layer| {
            let (x, balance) = layer.balanced(x, Balance { sent, likely }, rope, segments);
            (x, balance.sent, balance.likely)
        });
        let balance = Balance { sent, likely };
        let mut layers = 0;
        for layer in LAYERS.range() {
            if is_mixed(layer) {
                layers += 1;
            }
        }
        let tokens = match segments {
            Some(of) => counted(of).sum(),
            None => constant((B * S).f64(), f32),
        };
        (self.norm.forward(x).cast(work), balance.loss(tokens * layers))
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
