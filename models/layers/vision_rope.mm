//! Rotary positions of a picture's patches: half of a head's pairs turn with the row, half with the column, and a pair is
//! channels i and i + n/2. The towers of Qwen-VL and GLM-4V have it.
use super::rotary::{self, Angles};
use mm::prelude::*;

dims! {
    L, HEAD, PAIRS = HEAD / 2, PAIRS_OF_AXIS = PAIRS / 2, // patches, channels of a head
    AXES = 2,                                             // row, column
}

instances! { rotary { HEAD, ROTATED = HEAD, PAIRS = PAIRS_OF_AXIS, THETA } }

pub const THETA: f64 = 10_000.0;

/// The angles of patches by their rows and columns, [L, PAIRS] each.
pub fn angles(positions: Tensor![L, AXES; i64]) -> Angles {
    let [row, column] = positions.unstack(AXES).map(|of: Tensor| rotary::angles(of));
    let beside = |row: Tensor, column: Tensor| {
        concat(PAIRS, [row.rename(PAIRS_OF_AXIS, PAIRS), column.rename(PAIRS_OF_AXIS, PAIRS)])
    };
    Angles { cos: beside(row.cos, column.cos), sin: beside(row.sin, column.sin) }
}
