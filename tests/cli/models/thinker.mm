//! The language model inside the thinker of a Qwen2.5-Omni, by its text alone.
use super::layers::gated_mlp::{self, Mlp};
use super::layers::next_token;
use super::layers::rope::{self, Rope};
use mm::prelude::*;

dims! {
    B, S = 7, TOKENS = S,
    LAYERS = 2, HIDDEN = 24, HEADS = 6, KV_HEADS = 2, HEAD = HIDDEN / HEADS, FFN = 28, VOCAB = 50,
    Q = HEADS * HEAD, KV = KV_HEADS * HEAD,
}

instances! {
    rope { S, HEAD, THETA },
    gated_mlp { HIDDEN, FFN },
    next_token { S, HIDDEN, VOCAB },
}

const EPS: f64 = 1e-6;
const THETA: f64 = 1e6;

#[derive(Module)]
pub struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
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
            input_layernorm: norm(),
            self_attn: Attention {
                q_proj: linear(HIDDEN, Q),
                k_proj: linear(HIDDEN, KV),
                v_proj: linear(HIDDEN, KV),
                o_proj: linear(Q, HIDDEN).no_bias(),
            },
            post_attention_layernorm: norm(),
            mlp: Mlp::new(),
        }
    }

    fn forward(&self, x: Tensor![B, S, HIDDEN; f32], rope: Rope) -> Tensor![B, S, HIDDEN; f32] {
        let (of, y) = (&self.self_attn, self.input_layernorm.forward(x).cast(work));
        let q = rope.rotate(of.q_proj.forward(y).split(Q, [HEADS, HEAD]));
        let k = rope.rotate(of.k_proj.forward(y).split(KV, [KV_HEADS, HEAD]));
        let seen = attend_causal(q, k, of.v_proj.forward(y).split(KV, [KV_HEADS, HEAD]));
        let x = x + of.o_proj.forward(seen.merge([HEADS, HEAD], Q)).cast(f32);
        x + self.mlp.forward(self.post_attention_layernorm.forward(x).cast(work)).cast(f32)
    }
}

#[derive(Module)]
pub struct Body {
    embed_tokens: Embedding,
    layers: Stack<Layer>,
    norm: RmsNorm,
}

#[derive(Module)]
pub struct Thinker {
    model: Body,
    lm_head: Linear,
}

impl Thinker {
    pub fn new() -> Self {
        let body = Body {
            embed_tokens: embedding(VOCAB, HIDDEN).init(normal(0.02)).keep(f32),
            layers: stack(LAYERS, Layer::new),
            norm: norm(),
        };
        Self { model: body, lm_head: linear(HIDDEN, VOCAB).no_bias() }
    }

    fn read(&self, ids: Tensor![B, S; i64]) -> Tensor![B, S, HIDDEN] {
        let rope = Rope::new();
        let x = self.model.layers.fold(self.model.embed_tokens.forward(ids), |x, layer| layer.forward(x, rope));
        self.model.norm.forward(x).cast(work)
    }
}

fn norm() -> RmsNorm {
    rms_norm(HIDDEN, EPS).rounded_first()
}

pub struct Predicted {
    pub logits: Tensor![B, S, VOCAB; f32],
}

pub fn forward(thinker: &Thinker, input_ids: Tensor![B, S; i64]) -> Predicted {
    Predicted { logits: thinker.lm_head.forward(thinker.read(input_ids)).cast(f32) }
}

pub fn train(thinker: &Thinker, input_ids: Tensor![B, S; i64], labels: Tensor![B, S; i64]) -> Tensor![; f32] {
    let next = next_token::next(labels);
    next_token::loss(thinker.read(input_ids), next, |x: Tensor| thinker.lm_head.forward(x).cast(f32))
}

config! {
    "Qwen2_5OmniForConditionalGeneration" in thinker_config {
        LAYERS = text_config.num_hidden_layers, HIDDEN = text_config.hidden_size, FFN = text_config.intermediate_size,
        HEADS = text_config.num_attention_heads, KV_HEADS = text_config.num_key_value_heads,
        VOCAB = text_config.vocab_size, EPS = text_config.rms_norm_eps,
        THETA = text_config.rope_parameters.rope_theta | text_config.rope_theta | 1e6,
        expect(tie_word_embeddings | false == false),
        expect(text_config.hidden_act | "silu" == "silu"),
        expect(text_config.use_sliding_window | false == false),
        rename("" = "thinker."),
        other_weights("^talker\\.", "^token2wav\\.", "^thinker\\.audio_tower\\.", "^thinker\\.visual\\."),
        ignore(
            audio_config.*, vision_config.*, text_config.*, audio_end_token_id, audio_start_token_id, audio_token_index,
            image_token_index, initializer_range, model_type, position_id_per_seconds, seconds_per_chunk, user_token_id,
            video_token_index, super.enable_audio_output, super.model_type,
        ),
    },
}
