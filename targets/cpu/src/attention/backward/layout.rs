//! How the backward falls into tasks, and where their scratch lies.

use super::super::tiles::TileLayout;
use super::super::visibility::Extent;
use super::super::{Attention, MOST_PARTS, Scratch};
use crate::cpu::Cpu;
use crate::matmul::Word;
use crate::nest::points;

/// Queries in a tile, at the least.
const QUERIES: u64 = 64;

/// Words of what the numbers of a tile of queries extend over.
pub(super) const EXTENT: u64 = 2 * Extent::SAVED;

/// Keys in a tile, at the least.
const KEYS: u64 = 128;

/// Heads from which on a task has all keys and queries of one.
const HEADS: u64 = 4;

/// Tiles of keys or queries of a task, where heads are few.
const SHARE: u64 = 4;

/// The tasks of a problem and their scratch, in words.
pub(super) struct Layout {
    pub(super) form: TileLayout,
    /// Queries and keys in a tile; the keys are a multiple of the queries.
    pub(super) queries_tile: u64,
    pub(super) keys_tile: u64,
    pub(super) heads: u64,
    /// Keys of a task, and queries of a task or of a block.
    pub(super) keys_here: u64,
    pub(super) queries_here: u64,
    pub(super) tasks: u64,
    /// Rows of one head's queries, padded to whole tiles: all of them, and those of a block.
    pub(super) rows: u64,
    pub(super) rows_here: u64,
    /// From one row of scores to the next, and of their words.
    pub(super) line: u64,
    pub(super) half_line: u64,
    pub(super) lses: u64,
    pub(super) deltas: u64,
    pub(super) q_sums: u64,
    pub(super) k_sums: u64,
    pub(super) v_sums: u64,
    pub(super) k_panels: u64,
    pub(super) v_panels: u64,
    pub(super) keys: u64,
    pub(super) queries: u64,
    pub(super) interleaved_queries: u64,
    pub(super) douts: u64,
    pub(super) interleaved_douts: u64,
    pub(super) scores: u64,
    pub(super) dscores: u64,
    pub(super) interleaved_weights: u64,
    pub(super) interleaved_dscores: u64,
    pub(super) dscore_rows: u64,
    /// Of each tile of queries, where numbers hide keys: what they extend over, and whether its rows are copied.
    pub(super) extents: u64,
    pub(super) copied: u64,
    pub(super) scratch: u64,
}

impl Layout {
    pub(super) fn of(problem: &Attention, cpu: &Cpu) -> Self {
        let form = problem.form(cpu, problem.keys.size);
        let queries_tile = form.tile(QUERIES, form.lanes);
        let keys_tile = form.tile(KEYS, form.span).next_multiple_of(queries_tile);
        let heads = points(&problem.batch) * problem.kv_heads.size;
        let whole = heads >= HEADS;
        let (keys_here, queries_here) = if whole {
            (problem.keys.size, problem.queries.size)
        } else {
            ((SHARE * keys_tile).min(problem.keys.size), (SHARE * keys_tile).min(problem.queries.size))
        };
        let shares = |size: u64, here: u64| heads * size.div_ceil(here.max(1));
        let tasks = match whole {
            true => heads,
            false => shares(problem.keys.size, keys_here) + shares(problem.queries.size, queries_here),
        };
        let rows = problem.queries.size.next_multiple_of(queries_tile);
        let rows_here = queries_here.next_multiple_of(queries_tile);
        let pairs = form.word == Word::Bf16Pair;
        let (line, group) = (keys_tile + form.lanes, problem.group_size());
        let half_line = if pairs { keys_tile / 2 + form.lanes } else { line };
        let sums = if problem.queries.size > queries_here { keys_here.next_multiple_of(keys_tile) } else { keys_tile };

        let mut scratch = Scratch::default();
        let lses = scratch.take(group * rows);
        let deltas = scratch.take(group * rows);
        let q_sums = scratch.take(group * rows_here * form.depth);
        let k_sums = scratch.take(sums * form.interleaved);
        let v_sums = scratch.take(sums * form.interleaved);
        let k_panels = scratch.take(keys_tile / form.span * form.panel);
        let v_panels = scratch.take(keys_tile / form.span * form.panel);
        let keys = scratch.take(keys_tile * form.interleaved);
        let queries = scratch.take(group * rows_here * form.stride.max(form.interleaved));
        let douts = scratch.take(group * rows_here * form.stride.max(form.interleaved));
        let scores = scratch.take(queries_tile * line);
        let dscores = scratch.take(queries_tile * line);
        // Where a word is a value, what would be interleaved is what lies there.
        let mut interleaved = |words: u64, plain: u64| if pairs { scratch.take(words) } else { plain };
        let interleaved_queries = interleaved(group * rows_here / 2 * form.interleaved, queries);
        let interleaved_douts = interleaved(group * rows_here / 2 * form.interleaved, douts);
        let interleaved_weights = interleaved(queries_tile / 2 * line, scores);
        let interleaved_dscores = interleaved(queries_tile / 2 * line, dscores);
        let dscore_rows = interleaved(queries_tile * half_line, dscores);
        let tiles = if problem.visibility.is_some() { rows_here / queries_tile } else { 0 };
        let extents = scratch.take(tiles * EXTENT);
        let copied = scratch.take(group * tiles);
        Self {
            form,
            queries_tile,
            keys_tile,
            heads,
            keys_here,
            queries_here,
            tasks,
            rows,
            rows_here,
            line,
            half_line,
            lses,
            deltas,
            q_sums,
            k_sums,
            v_sums,
            k_panels,
            v_panels,
            keys,
            queries,
            interleaved_queries,
            douts,
            interleaved_douts,
            scores,
            dscores,
            interleaved_weights,
            interleaved_dscores,
            dscore_rows,
            extents,
            copied,
            scratch: scratch.words,
        }
    }

    pub(super) fn parts(&self) -> u64 {
        self.tasks.min(MOST_PARTS)
    }
}
