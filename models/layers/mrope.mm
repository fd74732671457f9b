//! Rotary positions of texts with pictures in them: of the pairs of a head, some turn with a token's frame, some with its
//! row, some with its column. In a text all three are the same.
use super::rotary::{self, Angles};
use mm::prelude::*;

dims! {
    B, S, HEAD, ROTATED = (HEAD.f64() * PARTIAL) as i64, PAIRS = ROTATED / 2,
    AXES = 3,                                             // frame, row, column
    FRAME = PAIRS - ROW - COLUMN, ROW, COLUMN,            // pairs of each: `mrope_section`
}

instances! { rotary { HEAD, ROTATED, PAIRS, THETA, PAIRING } }

pub const THETA: f64 = 10_000.0;
/// The part of a head that turns: `partial_rotary_factor`.
pub const PARTIAL: f64 = 1.0;
pub const PAIRING: &str = one_of(["halves", "neighbours"]);
/// In the order of pairs: first those of the frame, then those of the row, then those of the column (Qwen2-VL, GLM-4V);
/// or one of each in turn as long as there are, the rest with the frame (Qwen3-VL, Qwen3.5).
pub const ORDER: &str = one_of(["runs", "interleaved"]);

/// The angles of tokens by the class's `position_ids`, [B, S, PAIRS] each.
pub fn angles(position_ids: Tensor![AXES, B, S; i64]) -> Angles {
    require(FRAME + ROW + COLUMN == PAIRS, "`mrope_section` adds up to the pairs of a head that turn");
    let [frame, row, column] = position_ids.unstack(AXES).map(|of: Tensor| rotary::angles(of));
    let n = iota(PAIRS, i64);
    let [of_row, of_column] = match ORDER {
        "runs" => [n.ge(FRAME).and(n.lt(FRAME + ROW)), n.ge(FRAME + ROW)],
        _ => {
            let third = n.remainder(AXES);
            [third.eq(1).and(n.lt(ROW * AXES)), third.eq(2).and(n.lt(COLUMN * AXES))]
        }
    };
    let chosen = |frame: Tensor, row: Tensor, column: Tensor| {
        let all = |of: Tensor| of.expand([B, S, PAIRS]);
        select(all(of_row), row, select(all(of_column), column, frame))
    };
    Angles { cos: chosen(frame.cos, row.cos, column.cos), sin: chosen(frame.sin, row.sin, column.sin) }
}
