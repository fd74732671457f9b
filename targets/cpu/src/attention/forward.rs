//! The forward pass: for each block of queries, one sweep over the keys with a running maximum and sum.

use super::tiles::Rows;
use super::{Attention, Bases, DOUT, DQ, K, LSE, OUT, Products, Q, ROWS, Scratch, Shape, V, Window, shape_of, visible};
use crate::emit::{Cmp, Elem, Emitter, Kernel, Ty, Val};
use crate::nest::points;

/// The heads that a task reads and writes.
pub(super) struct Place {
    pub batch: Val,
    pub head: Val,
    pub kv_head: Val,
}

impl Attention {
    /// The rows of an operand at one place.
    pub(super) fn rows(&self, e: &mut Emitter, bases: &Bases, place: &Place, operand: usize) -> Option<Rows> {
        let base = bases[operand]?;
        let start = e.offset_linear(&self.batch, place.batch, operand);
        let of_queries = matches!(operand, Q | OUT | LSE | DOUT | DQ);
        let (heads, index, row) = match of_queries {
            true => (&self.heads, place.head, &self.queries),
            false => (&self.kv_heads, place.kv_head, &self.keys),
        };
        let stride = e.i64(heads.strides[operand]);
        let head = e.mul(index, stride);
        let start = e.add(start, head);
        Some(Rows {
            base,
            elem: if operand == LSE { Elem::F32 } else { self.elem },
            start,
            row_stride: row.strides[operand],
            depth_stride: self.head.strides[operand],
            depth: self.head.size,
        })
    }
}

impl Emitter {
    /// Emits `out` and `lse` from `q`, `k`, `v`. The workspace has [`Attention::forward_workspace`] bytes.
    pub fn attention(&mut self, kernel: &Kernel, attention: &Attention, bases: &Bases, window: Window, workspace: Val) {
        let shape = shape_of(self, attention, attention.queries.size);
        let blocks = attention.queries.size.div_ceil(shape.span);
        let tasks = attention.query_tasks(self.cpu());
        let parts = attention.forward_parts(self.cpu());
        let (from, to) = self.share(kernel, tasks, parts);
        let bytes = self.i64(attention.scratch_bytes(self.cpu()) as i64);
        let start = self.mul(kernel.part, bytes);
        self.for_each((from, to, 1), &[], |e, task, _| {
            let base = e.at_byte(workspace, start);
            let scratch = Scratch { base, used: 0 };
            let at = e.unravel(task, &[points(&attention.batch), attention.heads.size, blocks]);
            let group = e.i64(attention.group_size() as i64);
            let place = Place { batch: at[0], head: at[1], kv_head: e.div_unsigned(at[1], group) };
            let span = e.i64(shape.span as i64);
            let first = e.mul(at[2], span);
            forward_task(e, (attention, window), bases, shape, scratch, &place, first);
            Vec::new()
        });
    }
}

fn forward_task(
    e: &mut Emitter,
    (attention, window): (&Attention, Window),
    bases: &Bases,
    shape: Shape,
    mut scratch: Scratch,
    place: &Place,
    first: Val,
) {
    let tile = shape.depth * shape.span;
    let (columns, sums) = (scratch.take(e, tile), scratch.take(e, tile));
    let (keys, values) = (scratch.take(e, ROWS * shape.stride), scratch.take(e, ROWS * shape.stride));
    let scores = scratch.take(e, ROWS * shape.span);
    let line = scratch.take(e, shape.lanes * shape.lanes);
    let (highest, totals) = (scratch.take(e, shape.span), scratch.take(e, shape.span));
    let products = Products { shape };

    let rows = |e: &mut Emitter, operand| attention.rows(e, bases, place, operand);
    let (Some(q), Some(k), Some(v)) = (rows(e, Q), rows(e, K), rows(e, V)) else { return };
    e.transpose_rows(q, shape, first, attention.queries.size, columns);
    e.clear(sums, tile);
    e.clear(totals, shape.span);
    e.for_count(shape.span, shape.lanes, |e, lane| {
        let lowest = e.vconst(f32::NEG_INFINITY);
        let at = e.at(highest, Elem::F32, lane);
        e.store(lowest, at);
    });

    let (zero, span) = (e.i64(0), e.i64(shape.span as i64));
    let past = e.add(first, span);
    let end = window.last_key(e, attention, past);
    e.for_each((zero, end, ROWS as i64), &[], |e, key, _| {
        let left = e.sub(end, key);
        let most = e.i64(ROWS as i64);
        let count = e.min_int(left, most);
        e.copy_rows(k, shape, key, count, keys);
        e.copy_rows(v, shape, key, count, values);
        products.scores(e, keys, columns, scores, count, attention.head.size);
        e.for_count(shape.span, shape.lanes, |e, lane| {
            let block = Block { shape, first, key, count, lane };
            soften(e, (attention, window), &block, scores, (highest, totals), sums);
        });
        products.weigh(e, values, scores, sums, count);
        Vec::new()
    });

    if let Some(out) = rows(e, OUT) {
        e.store_transposed(out, shape, (first, attention.queries.size), (sums, line), |e, sum, lane| {
            let at = e.at(totals, Elem::F32, lane);
            let vf32 = e.vf32();
            let total = e.load(at, vf32);
            let share = e.div(sum, total);
            if !attention.windowed {
                return share;
            }
            // A query that sees no key.
            let none = e.vconst(0.0);
            let blind = e.cmp(Cmp::Eq, total, none);
            e.select(blind, none, share)
        });
    }
    if let Some(lse) = rows(e, LSE) {
        e.for_count(shape.span, shape.lanes, |e, lane| {
            let vf32 = e.vf32();
            let (total, high) = (e.at(totals, Elem::F32, lane), e.at(highest, Elem::F32, lane));
            let (total, high) = (e.load(total, vf32), e.load(high, vf32));
            let log = e.log(total);
            let value = e.add(high, log);
            let query = e.add(first, lane);
            let size = e.i64(attention.queries.size as i64);
            let left = e.sub(size, query);
            let mask = e.lanes_below(left);
            let stride = e.i64(lse.row_stride);
            let offset = e.mul(query, stride);
            let offset = e.add(lse.start, offset);
            let to = e.at(lse.base, Elem::F32, offset);
            e.store_strided(value, to, Elem::F32, lse.row_stride, Some(mask));
        });
    }
}

/// One vector of queries against one tile of keys.
pub(super) struct Block {
    pub shape: Shape,
    /// The first query of the tile.
    pub first: Val,
    /// The first key, and how many.
    pub key: Val,
    pub count: Val,
    /// The first lane of the vector.
    pub lane: Val,
}

impl Block {
    /// `query + reach - key` for the lanes of this vector, at the tile's first key.
    pub fn edge(&self, e: &mut Emitter, window: Window) -> Val {
        let query = e.add(self.first, self.lane);
        let ahead = e.add(query, window.reach);
        let ahead = e.sub(ahead, self.key);
        let ahead = e.truncate(ahead, Elem::I32);
        let ahead = e.splat(ahead);
        let steps = e.steps(Ty::vector(Elem::I32, ahead.ty.lanes));
        e.add(ahead, steps)
    }

    /// The address of this vector in row `row` of a score tile.
    pub fn cell(&self, e: &mut Emitter, tile: Val, row: Val) -> Val {
        let span = e.i64(self.shape.span as i64);
        let index = e.mul(row, span);
        let index = e.add(index, self.lane);
        e.at(tile, Elem::F32, index)
    }
}

/// Turns scores into weights relative to the new maximum, and rescales what was summed under the old one.
fn soften(
    e: &mut Emitter,
    (attention, window): (&Attention, Window),
    block: &Block,
    scores: Val,
    (highest, totals): (Val, Val),
    sums: Val,
) {
    let vf32 = e.vf32();
    let zero = e.i64(0);
    let scale = e.vconst(attention.scale() as f32);
    let edge = attention.causal.then(|| block.edge(e, window));
    let (high_at, total_at) = (e.at(highest, Elem::F32, block.lane), e.at(totals, Elem::F32, block.lane));
    let (old, total) = (e.load(high_at, vf32), e.load(total_at, vf32));
    let new = e.for_each((zero, block.count, 1), &[old], |e, row, high| {
        let at = block.cell(e, scores, row);
        let score = e.load(at, vf32);
        let mut score = e.mul(score, scale);
        if let Some(edge) = edge {
            let row = e.truncate(row, Elem::I32);
            let row = e.splat(row);
            let edge = e.sub(edge, row);
            score = visible(e, score, edge);
        }
        e.store(score, at);
        vec![e.max_fast(high[0], score)]
    });
    let lowest = e.vconst(f32::NEG_INFINITY);
    let none = e.vconst(0.0);
    // Where nothing is seen yet the maximum is no number to subtract.
    let blind = e.cmp(Cmp::Eq, new[0], lowest);
    let base = e.select(blind, none, new[0]);
    let sum = e.for_each((zero, block.count, 1), &[none], |e, row, sum| {
        let at = block.cell(e, scores, row);
        let score = e.load(at, vf32);
        let score = e.sub(score, base);
        let weight = e.exp(score);
        e.store(weight, at);
        vec![e.add(sum[0], weight)]
    });
    let shrink = e.sub(old, base);
    let shrink = e.exp(shrink);
    let total = e.fma(total, shrink, sum[0]);
    e.store(new[0], high_at);
    e.store(total, total_at);
    let depth = block.shape.depth;
    e.for_count(depth, 1, |e, d| {
        let at = block.cell(e, sums, d);
        let sum = e.load(at, vf32);
        let sum = e.mul(sum, shrink);
        e.store(sum, at);
    });
}
