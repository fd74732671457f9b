//! Flash attention, forward and backward, for any layout: scores exist only as tiles that fit the cache.
//!
//! All products run on words of 32 bits (an `f32`, or a pair of `bf16`): one operand lies in rows, the other in panels as
//! wide as the inner kernel. The query heads that share keys are one task and share its packed tiles. The parts share the
//! tasks; each result element is made by one task, in an order that depends on shapes alone.

mod backward;
mod bias;
mod finite;
mod forward;
mod problem;
mod tiles;
mod visibility;

pub use problem::{
    Attention, BIAS, Bases, DBIAS, DK, DOUT, DQ, DV, K, K_POSITION, K_SEGMENT, LSE, OPERANDS, OUT, Q, Q_POSITION,
    Q_SEGMENT, V, Window,
};
pub use visibility::Visibility;

use problem::{MOST_PARTS, Place, Scratch};
