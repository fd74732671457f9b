//! Interleaved 1F1B: a rank's stages take turns, each with a round of as many micro-batches as there are ranks
//! (Narayanan et al., "Efficient large-scale language model training on GPU clusters", 2021).

use diag::Diagnostic;

use super::{Grid, MAX_CHUNKS, Rules, Turn, Unit, UnitKind, placement};

pub const RULES: Rules = Rules {
    summary: "1f1b over several stages on each rank",
    kinds: &[UnitKind::Forward, UnitKind::Backward],
    chunks: 2..=MAX_CHUNKS,
    rank_of: placement::in_turn,
    turn,
    refuse,
    length: |grid| 3 * (grid.chunks * grid.microbatches + grid.ranks - 1),
    held: |grid, rank| (grid.chunks * grid.microbatches).min(ahead(grid, rank) + 1),
};

/// Forwards and backwards are counted over all stages of the rank, and go one and one after the warm-up.
fn turn(grid: &Grid, unit: &Unit) -> Turn {
    let Grid { ranks, chunks, .. } = *grid;
    let (chunk, rank) = (unit.stage / ranks, unit.stage % ranks);
    let nth = |chunk: usize| {
        let (round, within) = (unit.microbatch / ranks, unit.microbatch % ranks);
        ((round * chunks + chunk) * ranks + within) as isize
    };
    match unit.kind {
        UnitKind::Forward => (nth(chunk) - ahead(grid, rank) as isize - 1, 1),
        _ => (nth(chunks - 1 - chunk), 0),
    }
}

/// Forwards of the warm-up.
fn ahead(grid: &Grid, rank: usize) -> usize {
    2 * (grid.ranks - 1 - rank) + (grid.chunks - 1) * grid.ranks
}

fn refuse(grid: &Grid, name: &str) -> Option<Diagnostic> {
    let Grid { ranks, microbatches, .. } = *grid;
    let message = format!(
        "--schedule {name} takes micro-batches in rounds of --pp {ranks}, which does not divide {microbatches}"
    );
    let error = || Diagnostic::error(message).help(format!("give --microbatches {ranks} or a multiple of it"));
    (!microbatches.is_multiple_of(ranks)).then(error)
}
