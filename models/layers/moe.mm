//! Mixtures of experts: a router that chooses experts for each token, gated networks by number, and an expert for all. The
//! names are those of transformers.
use super::gated_mlp::{self, Mlp};
use mm::prelude::*;

dims! {
    B, S, HIDDEN,                                         // samples, tokens of a sample
    EXPERTS, CHOSEN, INNER,                               // experts, those of a token, the width inside of one
    SHARED = 0,                                           // the width inside of the expert for all; 0 is none
    ROUTED = EXPERTS,                                     // experts as the router counts them: every rank scores all
    GROUPS = 1, CHOSEN_GROUPS = 1,                        // groups of experts, those from which a token chooses
    MEMBERS = ROUTED / GROUPS, BEST = 2, ONE = 1,
}

instances! { gated_mlp { HIDDEN, FFN = SHARED, STD } }

/// The deviation of the weights at the beginning.
pub const STD: f64 = 0.02;
/// What scores are: a softmax over all experts; over the chosen ones alone; or a sigmoid of each.
pub const SCORES: &str = one_of(["softmax", "softmax_of_chosen", "sigmoid"]);
/// The weights of a token's experts add up to 1: `norm_topk_prob`.
pub const NORMALIZED: bool = false;
/// They are multiplied by this: `routed_scaling_factor`.
pub const SCALE: f64 = 1.0;
/// A correction is added to scores where experts are chosen, and not to weights: `e_score_correction_bias`.
pub const CORRECTED: bool = false;
/// A group is as good as its best two members together (DeepSeek-V3), or as its best one (DeepSeek-V2).
pub const GROUP_SCORE: &str = one_of(["best_two", "best"]);
/// The expert for all is weighed by a sigmoid of its own.
pub const SHARED_GATE: bool = false;
/// What the class calls the expert for all.
pub const SHARED_NAME: &str = one_of(["shared_expert", "shared_experts"]);

/// Whom tokens are sent to.
#[derive(Clone, Copy)]
pub struct Routing {
    /// Of each token's experts, [B, S, CHOSEN] in f32 and i64.
    pub weights: Tensor,
    pub experts: Tensor,
    /// How likely each expert is, [B, S, ROUTED] in f32.
    pub likely: Tensor,
}

/// Scores and choices in f32.
#[derive(Module)]
pub struct Router {
    weight: Param,
    #[name = "e_score_correction_bias"]
    correction: Option<Param>,
}

impl Router {
    pub fn new() -> Self {
        Self {
            weight: Param::normal([ROUTED, HIDDEN], STD).keep(f32),
            correction: if CORRECTED { Some(Param::zeros([ROUTED]).keep(f32).frozen()) } else { None },
        }
    }

    pub fn forward(&self, x: Tensor![B, S, HIDDEN]) -> Routing {
        let logits = x.cast(f32).contract(self.weight, [HIDDEN]);
        let scores = match SCORES {
            "softmax" => logits.softmax(ROUTED),
            "softmax_of_chosen" => logits,
            _ => logits.sigmoid(),
        };
        let mut choice = match &self.correction {
            Some(correction) => scores + *correction,
            None => scores,
        };
        if GROUPS > 1 {
            choice = select(in_best_groups(choice), choice, if GROUP_SCORE == "best" { 0.0 } else { -1e30 });
        }
        let (mut weights, experts) = choice.top_k(ROUTED, CHOSEN);
        if CORRECTED {
            weights = scores.gather(ROUTED, experts);
        }
        if SCORES == "softmax_of_chosen" {
            weights = weights.softmax(CHOSEN);
        }
        if NORMALIZED {
            weights = weights / (weights.sum_over([CHOSEN]) + if SCORES == "sigmoid" { 1e-20 } else { 0.0 });
        }
        let likely = if SCORES == "softmax_of_chosen" { logits.softmax(ROUTED) } else { scores };
        Routing { weights: if SCALE == 1.0 { weights } else { weights * SCALE }, experts, likely }
    }
}

/// Where an expert belongs to one of the best groups of a token, [B, S, ROUTED].
fn in_best_groups(choice: Tensor![B, S, ROUTED; f32]) -> Tensor![B, S, ROUTED; bool] {
    let members = choice.split(ROUTED, [GROUPS, MEMBERS]);
    let of_group = match GROUP_SCORE {
        "best" => members.max_over([MEMBERS]),
        _ => {
            let (best, _) = members.top_k(MEMBERS, BEST);
            best.sum_over([BEST])
        }
    };
    let (_, groups) = of_group.top_k(GROUPS, CHOSEN_GROUPS);
    let is_chosen = groups.eq(iota(GROUPS, i64)).cast(f32).sum_over([CHOSEN_GROUPS]);
    is_chosen.expand([B, S, GROUPS, MEMBERS]).merge([GROUPS, MEMBERS], ROUTED).gt(0.5)
}

/// The networks of all experts: down(silu(gate x) * up x) of the expert that a number names. Files hold a tensor for each
/// expert, or all of them in one, gate and up side by side or apart, either way around.
#[derive(Module)]
pub struct Experts {
    gate: Param,
    up: Param,
    down: Param,
}

impl Experts {
    pub fn new() -> Self {
        Self {
            gate: Param::normal([EXPERTS, INNER, HIDDEN], STD)
                .saved_as("{EXPERTS}.gate_proj.weight", [INNER, HIDDEN])
                .read_as("gate_up_proj", [EXPERTS, INNER.within(0, 2 * INNER), HIDDEN])
                .read_as("gate_up_proj", [EXPERTS, HIDDEN, INNER.within(0, 2 * INNER)])
                .read_as("gate_proj", [EXPERTS, INNER, HIDDEN])
                .read_as("gate_proj", [EXPERTS, HIDDEN, INNER])
                .read_as("{EXPERTS}.w1.weight", [INNER, HIDDEN]),
            up: Param::normal([EXPERTS, INNER, HIDDEN], STD)
                .saved_as("{EXPERTS}.up_proj.weight", [INNER, HIDDEN])
                .read_as("gate_up_proj", [EXPERTS, INNER.within(INNER, 2 * INNER), HIDDEN])
                .read_as("gate_up_proj", [EXPERTS, HIDDEN, INNER.within(INNER, 2 * INNER)])
                .read_as("up_proj", [EXPERTS, INNER, HIDDEN])
                .read_as("up_proj", [EXPERTS, HIDDEN, INNER])
                .read_as("{EXPERTS}.w3.weight", [INNER, HIDDEN]),
            down: Param::normal([EXPERTS, HIDDEN, INNER], STD)
                .saved_as("{EXPERTS}.down_proj.weight", [HIDDEN, INNER])
                .read_as("down_proj", [EXPERTS, HIDDEN, INNER])
                .read_as("down_proj", [EXPERTS, INNER, HIDDEN])
                .read_as("{EXPERTS}.w2.weight", [HIDDEN, INNER]),
        }
    }

    /// The weighted sum over each token's experts, in f32. The weights are taken into the last product, so that nothing as wide
    /// as the model is kept for each expert of a token.
    pub fn forward(&self, x: Tensor![B, S, HIDDEN], routing: Routing) -> Tensor![B, S, HIDDEN; f32] {
        let (gate, _) = x.grouped_matmul(EXPERTS, routing.experts, self.gate);
        let (up, _) = x.grouped_matmul(EXPERTS, routing.experts, self.up);
        let inner = (swiglu(gate, up).cast(f32) * routing.weights).cast(work);
        let (down, _) = inner.grouped_matmul(EXPERTS, routing.experts, self.down);
        down.sum_over([CHOSEN]).cast(f32)
    }
}

#[derive(Module)]
pub struct Moe {
    gate: Router,
    experts: Experts,
    shared_expert: Option<Mlp>,
    shared_expert_gate: Option<Linear>,
}

impl Moe {
    pub fn new() -> Self {
        Self {
            gate: Router::new(),
            experts: Experts::new(),
            shared_expert: if SHARED > 0 { Some(Mlp::new().named(SHARED_NAME)) } else { None },
            shared_expert_gate: if SHARED > 0 && SHARED_GATE {
                Some(linear(HIDDEN, ONE).no_bias().init(normal(STD)))
            } else {
                None
            },
        }
    }

    pub fn forward(&self, x: Tensor![B, S, HIDDEN]) -> Tensor![B, S, HIDDEN] {
        let (y, _) = self.routed(x);
        y
    }

    /// With how tokens were routed, for the loss that balances experts.
    pub fn routed(&self, x: Tensor![B, S, HIDDEN]) -> (Tensor, Routing) {
        let routing = self.gate.forward(x);
        let y = self.experts.forward(x, routing);
        let y = match (&self.shared_expert, &self.shared_expert_gate) {
            (Some(shared), Some(gate)) => {
                y + gate.forward(x).cast(f32).sigmoid().squeeze(ONE) * shared.forward(x).cast(f32)
            }
            (Some(shared), _) => y + shared.forward(x).cast(f32),
            _ => y,
        };
        (y.cast(work), routing)
    }
}

/// What is known of all layers and tokens together, [ROUTED] in f32: how many were sent to each expert, and how likely that
/// was.
#[derive(Clone, Copy)]
pub struct Balance {
    pub sent: Tensor,
    pub likely: Tensor,
}

impl Balance {
    pub fn new() -> Self {
        Self { sent: zeros([ROUTED], f32), likely: zeros([ROUTED], f32) }
    }

    /// With a layer more. Tokens count where `mask` is 1.
    pub fn and(&self, routing: Routing, mask: Option<Tensor![B, S; f32]>) -> Self {
        let sent = routing.experts.eq(iota(ROUTED, i64)).cast(f32).sum_over([CHOSEN]);
        let (sent, likely) = match mask {
            Some(mask) => (sent * mask, routing.likely * mask),
            None => (sent, routing.likely),
        };
        Self { sent: self.sent + sent.sum_over([B, S]), likely: self.likely + likely.sum_over([B, S]) }
    }

    /// The load-balancing loss of a micro-batch, as transformers' `load_balancing_loss_func` has it; `rows` is how many tokens
    /// count in all layers together.
    pub fn loss(&self, rows: Tensor) -> Tensor![; f32] {
        let loss = (self.sent / rows * (self.likely / rows)).sum_over([ROUTED]) * ROUTED.f64();
        loss.mean_over_microbatches()
    }
}
