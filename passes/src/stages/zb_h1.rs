//! ZB-H1: 1F1B whose gradients of weights wait and fill the bubble (Qi et al., "Zero bubble pipeline parallelism", 2023).

use super::{Grid, Turn, Unit, UnitKind};

/// The later a stage, the longer its gradients of weights wait, so that all stages end at once. A forward comes after the
/// gradients of weights of the micro-batch `ranks` before it: no stage holds more than the first one of 1F1B.
pub fn turn(grid: &Grid, unit: &Unit) -> Turn {
    let (microbatch, stage) = (unit.microbatch as isize, unit.stage as isize);
    match unit.kind {
        UnitKind::Backward => (microbatch, 0),
        UnitKind::Weights => (microbatch + stage, 1),
        UnitKind::Forward => (microbatch + stage - grid.ranks as isize, 2),
    }
}
