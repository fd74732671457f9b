//! Rectified flow: a model predicts noise - data of a mixture of both, and sampling goes from noise to data along it.
use mm::prelude::*;

dims! { LEVELS = STEPS + 1 }

pub const STEPS: i64 = 50;
/// More of the steps at high noise levels.
pub const SHIFT: f64 = 1.0;

/// The noise level of a share of the way from data to noise.
pub fn level(share: f64) -> f64 {
    SHIFT * share / (1.0 + (SHIFT - 1.0) * share)
}

/// The noise levels before and after a step.
pub fn levels(step: Tensor![; i64]) -> [Tensor; 2] {
    let share = 1.0 - iota(LEVELS, f32) / STEPS as f64;
    let levels = SHIFT * share / (1.0 + (SHIFT - 1.0) * share);
    [levels.gather(LEVELS, step), levels.gather(LEVELS, step + 1)]
}
