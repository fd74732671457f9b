//! Where stages lie: the rank of each.

use super::Grid;

/// Stage after stage over the ranks, again from the first rank for each chunk.
pub fn in_turn(grid: &Grid, stage: usize) -> usize {
    stage % grid.ranks
}
