//! One mixture of experts, and the loss that balances them.
use super::layers::moe::{self, Balance, Moe};
use mm::prelude::*;

dims! { B, S = 7, HIDDEN = 12, EXPERTS = 8, CHOSEN = 3, INNER = 10, SHARED = 0 }

instances! { moe { S, HIDDEN, EXPERTS, CHOSEN, INNER, SHARED } }

/// How much of the balancing loss is added.
pub const BALANCE: f64 = 0.0;

#[derive(Module)]
pub struct Net {
    mlp: Moe,
}

impl Net {
    pub fn new() -> Self {
        Self { mlp: Moe::new() }
    }
}

pub struct Mixed {
    pub mixed: Tensor,
}

pub fn forward(net: &Net, x: Tensor![B, S, HIDDEN]) -> Mixed {
    Mixed { mixed: net.mlp.forward(x).cast(f32) }
}

pub fn train(
    net: &Net,
    x: Tensor![B, S, HIDDEN],
    attention_mask: Tensor![B, S; i64],
    weight: Tensor![B, S, HIDDEN; f32],
) -> Tensor![; f32] {
    let (y, routing) = net.mlp.routed(x);
    let loss = (y.cast(f32) * weight).mean();
    if BALANCE == 0.0 {
        return loss;
    }
    let mask = attention_mask.cast(f32);
    loss + BALANCE * Balance::new().and(routing, Some(mask)).loss(mask.sum())
}
