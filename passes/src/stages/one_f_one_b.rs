//! 1F1B: as many forwards ahead as stages follow, then one backward and one forward in turn (Narayanan et al.,
//! "PipeDream", 2019, with a flush after each step).

use super::{Grid, Turn, Unit, UnitKind};

/// A stage holds no more micro-batches than there are stages from it to the end.
pub fn turn(grid: &Grid, unit: &Unit) -> Turn {
    let microbatch = unit.microbatch as isize;
    match unit.kind {
        UnitKind::Forward => (microbatch - (grid.ranks - unit.stage) as isize, 1),
        _ => (microbatch, 0),
    }
}
