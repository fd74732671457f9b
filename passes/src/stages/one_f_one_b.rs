//! 1F1B: as many forwards ahead as stages follow, then one backward and one forward in turn (Narayanan et al.,
//! "PipeDream", 2019, with a flush after each step).

use super::{Grid, Rules, Turn, Unit, UnitKind, placement};

pub const RULES: Rules = Rules {
    summary: "one forward, one backward: as many micro-batches are under way as stages follow",
    kinds: &[UnitKind::Forward, UnitKind::Backward],
    chunks: 1..=1,
    rank_of: placement::in_turn,
    turn,
    refuse: |_, _| None,
    length: |grid| 3 * (grid.microbatches + grid.ranks - 1),
    held: |grid, rank| grid.microbatches.min(grid.ranks - rank),
};

/// A stage holds no more micro-batches than there are stages from it to the end.
fn turn(grid: &Grid, unit: &Unit) -> Turn {
    let microbatch = unit.microbatch as isize;
    match unit.kind {
        UnitKind::Forward => (microbatch - (grid.ranks - unit.stage) as isize, 1),
        _ => (microbatch, 0),
    }
}
