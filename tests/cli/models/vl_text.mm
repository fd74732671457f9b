//! The language model inside a Qwen3-VL, by its text alone.
use super::layers::next_token;
use super::layers::text_decoder::{self, CausalLm};
use mm::prelude::*;

dims! {
    B, S = 7, TOKENS = S,
    LAYERS = 2, HIDDEN = 24, HEADS = 6, KV_HEADS = 2, HEAD = 8, FFN = 28, VOCAB = 50,
    Q = HEADS * HEAD, KV = KV_HEADS * HEAD,
}

instances! {
    text_decoder { S, VOCAB, LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD, FFN, Q, KV, TIE, EPS, THETA },
    next_token { S, HIDDEN, VOCAB },
}

pub const TIE: bool = false;
const EPS: f64 = 1e-6;
const THETA: f64 = 1e4;

pub struct Predicted {
    pub logits: Tensor![B, S, VOCAB; f32],
}

pub fn forward(qwen: &CausalLm, input_ids: Tensor![B, S; i64]) -> Predicted {
    Predicted { logits: qwen.logits(qwen.model.forward(input_ids, None)) }
}

pub fn train(qwen: &CausalLm, input_ids: Tensor![B, S; i64], labels: Tensor![B, S; i64]) -> Tensor![; f32] {
    let next = next_token::next(labels);
    next_token::loss(qwen.model.forward(input_ids, None), next, |x: Tensor| qwen.logits(x))
}

config! {
    "Qwen3VLForConditionalGeneration" in text_config {
        LAYERS = num_hidden_layers, HIDDEN = hidden_size, FFN = intermediate_size, HEADS = num_attention_heads,
        KV_HEADS = num_key_value_heads, HEAD = head_dim, VOCAB = vocab_size, EPS = rms_norm_eps,
        TIE = super.tie_word_embeddings | false,
        THETA = rope_parameters.rope_theta | rope_theta | 5e5,
        expect(hidden_act | "silu" == "silu"),
        expect(attention_bias | false == false),
        // Positions of text are alike on all three axes.
        expect(match rope_parameters.rope_type | "default" { "default" | "mrope" => "default" } == "default"),
        rename("model." = "model.language_model." | "language_model.model."),
        other_weights("^model\\.visual\\.", "^visual\\."),
        ignore(
            attention_dropout, initializer_range, max_position_embeddings, model_type, use_cache,
            rope_parameters.mrope_interleaved, rope_parameters.mrope_section, super.image_token_id, super.model_type,
            super.video_token_id, super.vision_end_token_id, super.vision_start_token_id,
        ),
    },
}
