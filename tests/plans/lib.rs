//! Plans against the interpreter: a module runs as a graph, and as a plan on all its ranks, and both give values by name.
//!
//! This package stands apart from `tests` because it links LLVM.

use std::collections::BTreeMap;

pub mod cases;
pub mod machine;
pub mod models;
pub mod numbers;
pub mod overwriting;
pub mod reference;
pub mod tape;

/// What leaves each step, and the parameters and state at the end.
pub type Values = BTreeMap<String, Vec<f64>>;

/// The seed of every draw and initial value.
pub const SEED: u64 = 3;

/// The name of a value that leaves a step.
pub fn of_step(step: u64, name: &str) -> String {
    format!("step {step} {name}")
}

/// The largest difference, and the name of the value it is in; each difference is divided by what `scale` says of the
/// value's name and numbers.
pub fn apart(found: &Values, expected: &Values, scale: impl Fn(&str, &[f64]) -> f64) -> Result<(f64, String), String> {
    if !found.keys().eq(expected.keys()) {
        let names = |v: &Values| v.keys().cloned().collect::<Vec<_>>().join(", ");
        return Err(format!("the plan gives {} and the graph {}", names(found), names(expected)));
    }
    let mut worst = (0.0, String::new());
    for (name, want) in expected {
        let scale = scale(name, want);
        if found[name].len() != want.len() {
            return Err(format!("{name} has {} numbers, not {}", found[name].len(), want.len()));
        }
        for (a, b) in found[name].iter().zip(want) {
            let off = if a == b { 0.0 } else { (a - b).abs() / scale };
            if off.is_nan() || off > worst.0 {
                worst = (if off.is_nan() { f64::INFINITY } else { off }, format!("{name} ({a:e} for {b:e})"));
            }
        }
    }
    Ok(worst)
}

/// The largest number of a tensor, or 0.001.
pub fn largest(numbers: &[f64]) -> f64 {
    numbers.iter().fold(1e-3f64, |m, v| m.max(v.abs()))
}
