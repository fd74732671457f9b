//! ZB-H1: 1F1B whose gradients of weights wait and fill the bubble (Qi et al., "Zero bubble pipeline parallelism", 2023).

use super::{Grid, Rules, Turn, Unit, UnitKind, placement};

pub const RULES: Rules = Rules {
    summary: "1f1b with gradients of weights in its bubble",
    kinds: &[UnitKind::Forward, UnitKind::Backward, UnitKind::Weights],
    chunks: 1..=1,
    rank_of: placement::in_turn,
    turn,
    refuse: |_, _| None,
    length,
    held: |grid, _| grid.microbatches.min(grid.ranks),
};

/// The later a stage, the longer its gradients of weights wait, so that all stages end at once. A forward comes after the
/// gradients of weights of the micro-batch `ranks` before it: no stage holds more than the first one of 1F1B.
fn turn(grid: &Grid, unit: &Unit) -> Turn {
    let (microbatch, stage) = (unit.microbatch as isize, unit.stage as isize);
    match unit.kind {
        UnitKind::Backward => (microbatch, 0),
        UnitKind::Weights => (microbatch + stage, 1),
        UnitKind::Forward => (microbatch + stage - grid.ranks as isize, 2),
    }
}

/// A third of 1F1B's bubble stays: ranks - 1. With fewer micro-batches than ranks the step is what no order can shorten: all
/// forwards and backwards of the last stage, the way there and back, and the first stage's last gradient of weights.
fn length(grid: &Grid) -> usize {
    let Grid { ranks, microbatches, .. } = *grid;
    (3 * microbatches + ranks - 1).max(2 * (microbatches + ranks) - 1)
}
