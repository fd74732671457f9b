//! Qwen3-MoE: language models with mixtures of experts. Parameter names are those of transformers' `Qwen3MoeForCausalLM`.
use super::layers::next_token;
use super::layers::text_decoder::{self, CausalLm};
use mm::prelude::*;

dims! {
    B, S = 4096, TOKENS = S,                              // samples, tokens of a sample
    LAYERS = 48, HIDDEN = 2048, HEADS = 32, KV_HEADS = 4, HEAD = 128, FFN = 6144, VOCAB = 151936,
    EXPERTS = 128, CHOSEN = 8, INNER = 768,               // experts, those of a token, the width inside of one
    Q = HEADS * HEAD, KV = KV_HEADS * HEAD,
    MASK = S * MASKED,                                    // tokens of the mask
}

instances! {
    text_decoder {
        S, VOCAB, LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD, FFN, Q, KV, EXPERTS, CHOSEN, INNER,
        TIE, EPS, THETA, DENSE, SPARSE_STEP, NORMALIZED,
    },
    next_token { S, HIDDEN, VOCAB },
}

presets! {
    "30b-a3b" {},
    "235b-a22b" { LAYERS = 94, HIDDEN = 4096, HEADS = 64, FFN = 12288, INNER = 1536 },
    "tiny" {
        S = 16, LAYERS = 2, HIDDEN = 32, HEADS = 4, KV_HEADS = 2, HEAD = 8, FFN = 64, VOCAB = 128,
        EXPERTS = 8, CHOSEN = 2, INNER = 16,
    },
}

/// The head is the embedding's table.
pub const TIE: bool = false;
/// The layers that have a network of width FFN in place of experts: `mlp_only_layers`.
pub const DENSE: &[i64] = &[];
/// Of so many layers, the last one has experts: `decoder_sparse_step`.
pub const SPARSE_STEP: i64 = 1;
/// The weights of a token's experts add up to 1: `norm_topk_prob`.
pub const NORMALIZED: bool = true;
/// The loss has a part that balances the experts: `output_router_logits`.
pub const BALANCED: bool = false;
/// How much of it: `router_aux_loss_coef`.
pub const BALANCE: f64 = 0.001;
/// What ranks of `tp` have of the experts: a part of each, or some of them whole.
pub const CUT: &str = one_of(["inner", "experts"]);

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

/// The mean loss over the tokens whose label counts, where position s predicts label s + 1; with the load-balancing loss, as
/// the class adds it.
pub fn train(
    qwen: &CausalLm,
    input_ids: Tensor![B, S; i64],
    attention_mask: Option<Tensor![B, MASK; i64]>,
    labels: Tensor![B, S; i64],
) -> Tensor![; f32] {
    let next = next_token::next(labels);
    let logits = |x: Tensor| qwen.logits(x);
    let seen = attention_mask.map(segments);
    if !BALANCED {
        return next_token::loss(qwen.model.forward(input_ids, seen), next, logits);
    }
    let (x, balance) = qwen.model.balanced(input_ids, seen);
    let (losses, _) = next_token::total(x, next, logits);
    losses / next_token::count(next) + BALANCE * balance
}

/// Where it runs.
pub fn plan(p: &mut Plan) {
    p.shard(B, "dp").shard(S, "cp").shard(HEADS, "tp").shard(KV_HEADS, "tp").shard(FFN, "tp").shard(VOCAB, "tp");
    p.shard(if CUT == "experts" { EXPERTS } else { INNER }, "tp");
    p.pipeline(LAYERS, "pp", OneFOneB);
    p.fsdp(["fsdp", "cp"]);
}

// Where published configs have these figures.
config! {
    "Qwen3MoeForCausalLM" {
        LAYERS = num_hidden_layers | 24, HIDDEN = hidden_size | 2048, FFN = intermediate_size | 6144,
        HEADS = num_attention_heads | 32, KV_HEADS = num_key_value_heads | 4, HEAD = head_dim | hidden_size / num_attention_heads,
        VOCAB = vocab_size | 151936, EPS = rms_norm_eps | 1e-6, TIE = tie_word_embeddings | false,
        EXPERTS = num_local_experts | num_experts | 128, CHOSEN = num_experts_per_tok | 8, INNER = moe_intermediate_size | 768,
        DENSE = mlp_only_layers | [], SPARSE_STEP = decoder_sparse_step | 1,
        NORMALIZED = norm_topk_prob | false,
        BALANCED = output_router_logits | false, BALANCE = router_aux_loss_coef | 0.001,
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
        expect(model_type | "qwen3_moe" == "qwen3_moe"),
        ignore(
            bos_token_id, eos_token_id, initializer_range, layer_types, max_position_embeddings, max_window_layers,
            pad_token_id, sliding_window, use_cache,
        ),
    },
}
