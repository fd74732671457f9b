//! ZB-V: two stages a rank, down the ranks and back up in the shape of a V, and gradients of weights in units of their own
//! (Qi et al., "Zero bubble pipeline parallelism", 2023, section 6; the block V-ZB of "Pipeline parallelism with
//! controllable memory", 2024).
//!
//! Where F, B and W take equally long, a rank never waits between its first forward and its last gradient (bubble 0), from
//! 2 * ranks - 1 micro-batches on. The loss is on the first rank.

use super::{Grid, Rules, Turn, Unit, UnitKind};

pub const RULES: Rules = Rules {
    summary: "two stages on each rank, there and back, with gradients of weights in the bubble",
    kinds: &[UnitKind::Forward, UnitKind::Backward, UnitKind::Weights],
    chunks: 2..=2,
    rank_of,
    turn,
    refuse: |_, _| None,
    length,
    held,
};

/// The way down takes stage after stage over the ranks, and the way up goes back.
fn rank_of(grid: &Grid, stage: usize) -> usize {
    stage.min(2 * grid.ranks - 1 - stage)
}

/// Turns are rounds of F B W of the stage on the way down and F B W of the one on the way up.
///
/// A rank begins with so many forwards on the way down as fill the time until the first micro-batch comes back. At the end
/// its gradients of weights wait for `rank` rounds, so that backwards which others wait for come first.
fn turn(grid: &Grid, unit: &Unit) -> Turn {
    let (ranks, m) = (grid.ranks as isize, unit.microbatch as isize);
    let rank = rank_of(grid, unit.stage) as isize;
    let is_down = unit.stage < grid.ranks;
    let count = (grid.microbatches as isize).max(2 * ranks - 1);
    match (unit.kind, is_down) {
        (UnitKind::Forward, true) if m < 2 * ranks - 1 - rank => (m + 2 * rank + 1 - 3 * ranks, 5),
        (UnitKind::Forward, true) => (m + rank + 1 - 2 * ranks, 0),
        (UnitKind::Backward, true) => (m, 1),
        (UnitKind::Weights, true) if m >= count - ranks => (m + rank, 2),
        (UnitKind::Weights, true) => (m, 2),
        (UnitKind::Forward, false) => (m - ranks, 3),
        (UnitKind::Backward, false) => (m + rank - ranks, 4),
        (UnitKind::Weights, false) if m >= count - rank => (m + rank, 5),
        (UnitKind::Weights, false) => (m + rank - ranks, 5),
    }
}

/// Six units for each micro-batch, after the last rank has waited for its first: no order is shorter. With few micro-batches
/// it is the way of the first one down, up and back through 2 * ranks stages, four units of the first rank for each of the
/// others, and the last two gradients of weights.
fn length(grid: &Grid) -> usize {
    let Grid { ranks, microbatches, .. } = *grid;
    (6 * microbatches + ranks - 1).max(4 * (microbatches + ranks) - 2)
}

/// Of the stage on the way down and of the one on the way up, together 2 * ranks at most: as much memory as `ranks`
/// micro-batches of a stage of twice the size, which is what the first rank of 1F1B holds.
fn held(grid: &Grid, rank: usize) -> usize {
    let Grid { ranks, microbatches, .. } = *grid;
    microbatches.min(2 * ranks - 1 - rank) + microbatches.min(rank + 1)
}
