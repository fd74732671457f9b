//! Rotary positions along one axis, as language models have them: channel i of a head turns with channel i + n/2.
use mm::prelude::*;

dims! { S, HEAD, PAIRS = HEAD / 2 }

pub const THETA: f64 = 10_000.0;

/// Angles of the positions, [S, PAIRS] each.
#[derive(Clone, Copy)]
pub struct Rope {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    pub fn new() -> Self {
        let frequencies = 1.0 / powers(THETA, iota(PAIRS, f32) * 2.0 / HEAD.f64());
        let angles = iota(S, f32) * frequencies;
        Self { cos: angles.cos(), sin: angles.sin() }
    }

    pub fn rotate(&self, x: Tensor) -> Tensor {
        x.rotate_halves(HEAD, self.cos, self.sin)
    }
}
