//! Interleaved 1F1B: a rank's stages take turns, each with a round of as many micro-batches as there are ranks
//! (Narayanan et al., "Efficient large-scale language model training on GPU clusters", 2021).

use super::{Grid, Turn, Unit, UnitKind};

/// Forwards and backwards are counted over all stages of the rank, and go one and one after the warm-up.
pub fn turn(grid: &Grid, unit: &Unit) -> Turn {
    let Grid { ranks, chunks, .. } = *grid;
    let (chunk, rank) = (unit.stage / ranks, unit.stage % ranks);
    let nth = |chunk: usize| {
        let (round, within) = (unit.microbatch / ranks, unit.microbatch % ranks);
        ((round * chunks + chunk) * ranks + within) as isize
    };
    let ahead = 2 * (ranks - 1 - rank) + (chunks - 1) * ranks;
    match unit.kind {
        UnitKind::Forward => (nth(chunk) - ahead as isize - 1, 1),
        _ => (nth(chunks - 1 - chunk), 0),
    }
}
