//! Qwen3: dense language models. Parameter names are those of transformers' `Qwen3ForCausalLM`.
use super::layers::next_token;
use super::layers::text_decoder::{self, CausalLm};
use mm::prelude::*;

dims! {
    B, S = 4096, TOKENS = S,                              // samples, tokens of a sample
    LAYERS = 28, HIDDEN = 1024, HEADS = 16, KV_HEADS = 8, HEAD = 128, FFN = 3072, VOCAB = 151936,
    Q = HEADS * HEAD, KV = KV_HEADS * HEAD,
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

pub struct Predicted {
    pub logits: Tensor![B, S, VOCAB; f32],
}

/// Arguments and result have the names of the published class.
pub fn forward(qwen: &CausalLm, input_ids: Tensor![B, S; i64]) -> Predicted {
    Predicted { logits: qwen.logits(qwen.model.forward(input_ids)) }
}

aliases! { input_ids = ids }

/// The mean loss over the tokens whose label counts; position s predicts label s + 1.
pub fn train(qwen: &CausalLm, input_ids: Tensor![B, S; i64], labels: Tensor![B, S; i64]) -> Tensor![; f32] {
    let next = next_token::next(labels);
    next_token::loss(qwen.model.forward(input_ids), next, |x: Tensor| qwen.logits(x))
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
