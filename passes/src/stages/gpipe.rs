//! GPipe: all forwards, then all backwards (Huang et al., "GPipe", 2019).

use super::{Grid, Rules, Turn, Unit, UnitKind, placement};

pub const RULES: Rules = Rules {
    summary: "all forwards, then all backwards",
    kinds: &[UnitKind::Forward, UnitKind::Backward],
    chunks: 1..=1,
    rank_of: placement::in_turn,
    turn,
    refuse: |_, _| None,
    length: |grid| 3 * (grid.microbatches + grid.ranks - 1),
    held: |grid, _| grid.microbatches,
};

/// Backwards go in the order of micro-batches too, so that every schedule adds up gradients alike.
fn turn(_: &Grid, unit: &Unit) -> Turn {
    ((unit.kind != UnitKind::Forward) as isize, unit.microbatch as isize)
}
