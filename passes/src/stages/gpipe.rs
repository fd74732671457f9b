//! GPipe: all forwards, then all backwards (Huang et al., "GPipe", 2019).

use super::{Turn, Unit, UnitKind};

/// Backwards go in the order of micro-batches too, so that every schedule adds up gradients alike.
pub fn turn(unit: &Unit) -> Turn {
    ((unit.kind != UnitKind::Forward) as isize, unit.microbatch as isize)
}
