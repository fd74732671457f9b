//! Heads turned by their positions, as one of the libraries has it.
use super::layers::rope::Rope;
use super::layers::{mrope, rope, vision_rope};
use mm::prelude::*;

dims! {
    B, S = 6, HEADS = 2, HEAD = 16,
    AXES = 3, TWO = 2, ROW = 2, COLUMN = 2,               // numbers of a position; pairs that turn with rows and columns
}

instances! {
    rope { S, HEAD, THETA, PARTIAL },
    mrope { S, HEAD, AXES, ROW, COLUMN, THETA, PARTIAL },
    vision_rope { L = S, HEAD, AXES = TWO, THETA },
}

pub const THETA: f64 = 10_000.0;
pub const PARTIAL: f64 = 1.0;
pub const OF: &str = one_of(["rope", "rope_at", "mrope", "vision_rope"]);

/// Heads are a parameter, so that their gradient is seen.
#[derive(Module)]
pub struct Net {
    q: Param,
}

impl Net {
    pub fn new() -> Self {
        Self { q: Param::normal([B, S, HEADS, HEAD], 1.0).keep(f32) }
    }

    fn turned(&self, at: Tensor![AXES, B, S; i64]) -> Tensor![B, S, HEADS, HEAD; f32] {
        let q = self.q.cast(f32);
        match OF {
            "rope" => Rope::new().rotate(q),
            "rope_at" => Rope::at(at.at(AXES, 0)).rotate(q),
            "mrope" => mrope::angles(at).rotate(q),
            _ => {
                let places = at.slice(AXES, ..2).rename(AXES, TWO).at(B, 0);
                vision_rope::angles(places.transpose([S, TWO])).rotate(q)
            }
        }
    }
}

pub struct Turned {
    pub turned: Tensor,
}

pub fn forward(net: &Net, position_ids: Tensor![AXES, B, S; i64]) -> Turned {
    Turned { turned: net.turned(position_ids) }
}

pub fn train(
    net: &Net,
    position_ids: Tensor![AXES, B, S; i64],
    weight: Tensor![B, S, HEADS, HEAD; f32],
) -> Tensor![; f32] {
    (net.turned(position_ids) * weight).mean()
}
