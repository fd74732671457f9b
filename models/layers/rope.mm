//! Rotary positions along one axis, as language models have them: channel i of a head turns with channel i + n/2.
//!
//! `rotary::KIND` and its figures slow pairs down for longer texts.
pub use super::rotary::{self, Angles};
use mm::prelude::*;

dims! { S, HEAD, ROTATED = (HEAD.f64() * PARTIAL) as i64, PAIRS = ROTATED / 2 }

instances! { rotary { HEAD, ROTATED, PAIRS, THETA } }

pub const THETA: f64 = 10_000.0;
/// The part of a head that turns: `partial_rotary_factor`.
pub const PARTIAL: f64 = 1.0;

/// Angles of the positions, [S, PAIRS] each, or with more axes.
#[derive(Clone, Copy)]
pub struct Rope {
    angles: Angles,
}

impl Rope {
    /// Tokens count on from 0.
    pub fn new() -> Self {
        if rotary::KIND != "default" {
            return Self::at(iota(S, i64));
        }
        // As the classes compute them, step by step in f32.
        let frequencies = 1.0 / powers(THETA, iota(PAIRS, f32) * 2.0 / ROTATED.f64());
        let angles = iota(S, f32) * frequencies;
        Self { angles: Angles { cos: angles.cos(), sin: angles.sin() } }
    }

    /// Tokens stand at these positions: [.., S].
    pub fn at(positions: Tensor![.., S; i64]) -> Self {
        Self { angles: rotary::angles(positions) }
    }

    pub fn rotate(&self, x: Tensor) -> Tensor {
        self.angles.rotate(x)
    }
}
