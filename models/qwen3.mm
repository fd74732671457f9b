//! Qwen3: dense language models. Parameter names are those of transformers' `Qwen3ForCausalLM`.
use super::layers::next_token;
use super::layers::text_decoder::{self, CausalLm};
use mm::prelude::*;

dims! {
    B, S = 4096, TOKENS = S,                              // samples, tokens of a sample
    LAYERS = 28, HIDDEN = 1024, HEADS = 16, KV_HEADS = 8, HEAD = 128, FFN = 3072, VOCAB = 151936,
    Q = HEADS * HEAD, KV = KV_HEADS * HEAD,
    MASK = S * MASKED,                                    // tokens of the mask
}

instances! {
    text_decoder { S, VOCAB, LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD, FFN, Q, KV, TIE, EPS, THETA },
    next_token { S, HIDDEN, VOCAB },
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

/// 1 where inputs have an `attention_mask`: 0 is padding, and equal numbers see each other.
pub const MASKED: i64 = 0;

pub struct Predicted {
    pub logits: Tensor![B, S, VOCAB; f32],
}

/// Arguments and result have the names of the published class.
pub fn forward(
    qwen: &CausalLm,
    input_ids: Tensor![B, S; i64],
    attention_mask: Option<Tensor![B, MASK; i64]>,
) -> Predicted {
    Predicted { logits: qwen.logits(qwen.model.forward(input_ids, attention_mask.map(segments))) }
}

fn segments(mask: Tensor![B, MASK; i64]) -> Tensor![B, S; i64] {
    mask.rename(MASK, S)
}

aliases! { input_ids = ids }

/// The mean loss over the tokens whose label counts; position s predicts label s + 1.
pub fn train(
    qwen: &CausalLm,
    input_ids: Tensor![B, S; i64],
    attention_mask: Option<Tensor![B, MASK; i64]>,
    labels: Tensor![B, S; i64],
) -> Tensor![; f32] {
    let next = next_token::next(labels);
    next_token::loss(qwen.model.forward(input_ids, attention_mask.map(segments)), next, |x: Tensor| qwen.logits(x))
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
        text_decoder::rope::rotary::KIND = rope_parameters.rope_type | rope_scaling.rope_type | rope_scaling.type | "default",
        text_decoder::rope::rotary::FACTOR = rope_parameters.factor | rope_scaling.factor | 1.0,
        text_decoder::rope::rotary::ORIGINAL = rope_parameters.original_max_position_embeddings | rope_scaling.original_max_position_embeddings | 0.0,
        text_decoder::rope::rotary::LOW = rope_parameters.low_freq_factor | rope_scaling.low_freq_factor | 1.0,
        text_decoder::rope::rotary::HIGH = rope_parameters.high_freq_factor | rope_scaling.high_freq_factor | 4.0,
        text_decoder::rope::rotary::BETA_FAST = rope_parameters.beta_fast | rope_scaling.beta_fast | 32.0,
        text_decoder::rope::rotary::BETA_SLOW = rope_parameters.beta_slow | rope_scaling.beta_slow | 1.0,
        text_decoder::rope::rotary::TRUNCATE = rope_parameters.truncate | rope_scaling.truncate | true,
        text_decoder::rope::rotary::ATTENTION = rope_parameters.attention_factor | rope_scaling.attention_factor | 0.0,
        text_decoder::rope::rotary::MSCALE = rope_parameters.mscale | rope_scaling.mscale | 0.0,
        text_decoder::rope::rotary::MSCALE_ALL_DIM = rope_parameters.mscale_all_dim | rope_scaling.mscale_all_dim | 0.0,
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
