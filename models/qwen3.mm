//! Qwen3: dense language models. Parameter names are those of transformers' `Qwen3ForCausalLM`.
use mm::prelude::*;

dims! {
    B, S = 4096, TOKENS = S,                              // samples, tokens of a sample
    LAYERS = 28, HIDDEN = 1024, HEADS = 16, KV_HEADS = 8, HEAD = 128, FFN = 3072, VOCAB = 151936,
    Q = HEADS * HEAD, KV = KV_HEADS * HEAD,
    PAIRS = HEAD / 2,
    // The loss is taken chunk by chunk, so that the logits of a whole batch never exist. A chunk has every CHUNKS-th
    // token of each sample: samples and tokens can still be cut over the ranks. 1,024 of them hide reading the vocabulary.
    CHUNKS = (B * S).div_ceil(1024).at_least(2),
    PART = S.div_ceil(CHUNKS), PADDED = CHUNKS * PART,
}

presets! {
    "0.6b" {},
    "1.7b" { HIDDEN = 2048, FFN = 6144 },
    "4b" { LAYERS = 36, HIDDEN = 2560, HEADS = 32, FFN = 9728 },
    "8b" { LAYERS = 36, HIDDEN = 4096, HEADS = 32, FFN = 12288, TIE = false },
    "14b" { LAYERS = 40, HIDDEN = 5120, HEADS = 40, FFN = 17408, TIE = false },
    "32b" { LAYERS = 64, HIDDEN = 5120, HEADS = 64, FFN = 25600, TIE = false },
    "tiny" { S = 16, LAYERS = 2, HIDDEN = 32, HEADS = 4, KV_HEADS = 2, HEAD = 8, FFN = 64, VOCAB = 128 },
}

/// The head is the embedding's table.
pub const TIE: bool = true;

const EPS: f64 = 1e-6;
const THETA: f64 = 1_000_000.0;
const IGNORED: i64 = -100;

/// Angles of the positions, [S, PAIRS] each.
#[derive(Clone, Copy)]
pub struct Rope {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    fn new() -> Self {
        let frequencies = 1.0 / powers(THETA, iota(PAIRS, f32) * 2.0 / HEAD.f64());
        let angles = iota(S, f32) * frequencies;
        Self { cos: angles.cos(), sin: angles.sin() }
    }

    fn rotate(&self, x: Tensor) -> Tensor {
        x.rotate_halves(HEAD, self.cos, self.sin)
    }
}

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
pub struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Mlp {
    fn new() -> Self {
        Self {
            gate_proj: projection(HIDDEN, FFN),
            up_proj: projection(HIDDEN, FFN),
            down_proj: projection(FFN, HIDDEN),
        }
    }

    fn forward(&self, x: Tensor![B, S, HIDDEN]) -> Tensor![B, S, HIDDEN] {
        self.down_proj.forward(swiglu(self.gate_proj.forward(x), self.up_proj.forward(x)))
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

    /// The residual stays in f32, as PyTorch's autocast has it.
    fn forward(&self, x: Tensor![B, S, HIDDEN; f32], rope: Rope) -> Tensor![B, S, HIDDEN; f32] {
        let seen = self.self_attn.forward(self.input_layernorm.forward(x).cast(work), rope);
        let x = x + seen.cast(f32);
        x + self.mlp.forward(self.post_attention_layernorm.forward(x).cast(work)).cast(f32)
    }
}

#[derive(Module)]
pub struct Body {
    embed_tokens: Embedding,
    layers: Stack<Layer>,
    norm: RmsNorm,
}

impl Body {
    fn new() -> Self {
        let table = embedding(VOCAB, HIDDEN).init(normal(0.02)).keep(f32);
        Self {
            embed_tokens: if TIE { table.tied_to("lm_head.weight") } else { table },
            layers: stack(LAYERS, Layer::new),
            norm: norm(HIDDEN),
        }
    }

    fn forward(&self, ids: Tensor![B, S; i64]) -> Tensor![B, S, HIDDEN] {
        let rope = Rope::new();
        let x = self.layers.fold(self.embed_tokens.forward(ids), |x, layer| layer.forward(x, rope));
        self.norm.forward(x).cast(work)
    }
}

#[derive(Module)]
pub struct Qwen3 {
    model: Body,
    lm_head: Option<Linear>,
}

impl Qwen3 {
    pub fn new() -> Self {
        Self { model: Body::new(), lm_head: if TIE { None } else { Some(projection(HIDDEN, VOCAB)) } }
    }

    fn logits(&self, x: Tensor![.., HIDDEN]) -> Tensor![.., VOCAB; f32] {
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

pub struct Predicted {
    pub logits: Tensor![B, S, VOCAB; f32],
}

/// Arguments and result have the names of the published class.
pub fn forward(qwen: &Qwen3, input_ids: Tensor![B, S; i64]) -> Predicted {
    Predicted { logits: qwen.logits(qwen.model.forward(input_ids)) }
}

aliases! { input_ids = ids }

/// The mean loss over the tokens whose label counts; position s predicts label s + 1.
pub fn train(qwen: &Qwen3, input_ids: Tensor![B, S; i64], labels: Tensor![B, S; i64]) -> Tensor![; f32] {
    let next = labels.pad(S, 0, 1, IGNORED).slice(S, 1..);
    let more = PADDED - S;
    let x = qwen.model.forward(input_ids).pad(S, 0, more, 0).split(S, [PART, CHUNKS]);
    let next = next.pad(S, 0, more, IGNORED).split(S, [PART, CHUNKS]);
    let x = x.transpose([CHUNKS, B, PART, HIDDEN]).chunks(CHUNKS, CHUNKS);
    let chunks = x.zip(next.transpose([CHUNKS, B, PART]).chunks(CHUNKS, CHUNKS)).recompute();
    let none = constant(0.0, f32);
    let (loss, count) = chunks.fold((none, none), |(loss, count), (x, next)| {
        let losses = cross_entropy(qwen.logits(x), next, VOCAB, IGNORED);
        (loss + losses.sum(), count + next.ne(IGNORED).cast(f32).sum())
    });
    loss / count
}

/// Where it runs.
pub fn plan(p: &mut Plan) {
    p.shard(B, "dp").shard(S, "cp").shard(HEADS, "tp").shard(KV_HEADS, "tp").shard(FFN, "tp").shard(VOCAB, "tp");
    p.pipeline(LAYERS, "pp", OneFOneB);
    p.fsdp(["fsdp", "cp"]);
}

// Where published configs have these figures.
config! {
    "Qwen3ForCausalLM" {
        LAYERS = num_hidden_layers | 32, HIDDEN = hidden_size | 4096, FFN = intermediate_size | 22016,
        HEADS = num_attention_heads | 32, KV_HEADS = num_key_value_heads | 32, HEAD = head_dim | 128,
        VOCAB = vocab_size | 151936, EPS = rms_norm_eps | 1e-6, TIE = tie_word_embeddings | false,
        // transformers 5 has one table of rope's figures, transformers 4 two keys.
        THETA = rope_parameters.rope_theta | rope_scaling.rope_theta | rope_theta | 1e4,
        expect(rope_parameters.rope_type | rope_scaling.rope_type | rope_scaling.type | "default" == "default"),
        expect(hidden_act | "silu" == "silu"),
        expect(attention_bias | false == false),
        expect(use_sliding_window | false == false),
        expect(attention_dropout | 0.0 == 0.0),
        expect(model_type | "qwen3" == "qwen3"),
        ignore(
            bos_token_id, eos_token_id, initializer_range, layer_types, max_position_embeddings, max_window_layers,
            sliding_window, use_cache,
        ),
    },
}
