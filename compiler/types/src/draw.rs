//! Random tensors: a value depends on (seed, name, step, logical index) alone, so that every mesh draws the same numbers.

use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};

use crate::{Key, philox4x32_10};

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Uniform in `lo..hi`.
    Uniform {
        lo: f64,
        hi: f64,
    },
    Normal {
        mean: f64,
        std: f64,
    },
}

/// How a parameter or a state tensor begins.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    Zeros,
    Ones,
    Constant(f64),
    Random(Distribution),
}

impl Init {
    /// Writes elements `first..first + out.len()` (row-major, of the whole logical tensor).
    pub fn fill(&self, seed: u64, name: &str, first: u64, out: &mut [f32]) {
        match *self {
            Init::Zeros => out.fill(0.0),
            Init::Ones => out.fill(1.0),
            Init::Constant(v) => out.fill(v as f32),
            Init::Random(d) => fill(d, Key::new(seed, name), 0, first, out),
        }
    }
}

/// Writes elements `first..first + out.len()` of the draw at `step`.
pub fn fill(distribution: Distribution, key: Key, step: u64, first: u64, out: &mut [f32]) {
    let mut block = (u64::MAX, [0.0f64; 4]);
    for (i, value) in out.iter_mut().enumerate() {
        let index = first + i as u64;
        if block.0 != index / 4 {
            block = (index / 4, four(distribution, key, step, index / 4));
        }
        *value = block.1[(index % 4) as usize] as f32;
    }
}

fn four(distribution: Distribution, key: Key, step: u64, counter: u64) -> [f64; 4] {
    let words = philox4x32_10([counter as u32, (counter >> 32) as u32, step as u32, (step >> 32) as u32], key.0);
    // Half a unit is added so that 0 never occurs and the logarithm below stays finite.
    let unit = words.map(|w| (f64::from(w) + 0.5) / 4_294_967_296.0);
    match distribution {
        Distribution::Uniform { lo, hi } => unit.map(|u| lo + (hi - lo) * u),
        Distribution::Normal { mean, std } => {
            // Box-Muller; libm rather than the system's library, so that machines agree.
            let pair = |u: f64, v: f64| {
                let r = libm::sqrt(-2.0 * libm::log(u));
                let (sin, cos) = libm::sincos(TAU * v);
                [mean + std * r * cos, mean + std * r * sin]
            };
            let ([a, b], [c, d]) = (pair(unit[0], unit[1]), pair(unit[2], unit[3]));
            [a, b, c, d]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_of_a_draw_is_the_draw_of_a_slice() {
        let d = Distribution::Normal { mean: 0.0, std: 1.0 };
        let key = Key::new(7, "noise");
        let mut whole = [0.0; 103];
        fill(d, key, 5, 0, &mut whole);
        let mut part = [0.0; 50];
        fill(d, key, 5, 31, &mut part);
        assert_eq!(part, whole[31..81]);
    }

    #[test]
    fn moments_are_right() {
        let mut out = vec![0.0; 40_000];
        fill(Distribution::Normal { mean: 1.0, std: 2.0 }, Key::new(1, "x"), 0, 0, &mut out);
        let n = out.len() as f64;
        let mean = out.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let var = out.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        assert!((mean - 1.0).abs() < 0.05 && (var - 4.0).abs() < 0.15, "mean {mean}, variance {var}");
        fill(Distribution::Uniform { lo: 2.0, hi: 4.0 }, Key::new(1, "u"), 0, 0, &mut out);
        assert!(out.iter().all(|&x| (2.0..=4.0).contains(&x)));
    }
}
