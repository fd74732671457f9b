//! The backward pass: one sweep over keys for dq, one sweep over queries for dk and dv; weights come again from `lse`.
//!
//! With p = e^(scale s - lse) and D = rowsum(dout out): ds = scale p (dout v^T - D), dq = ds k, dk = ds^T q, dv = p^T dout.

use super::forward::{Block, Place};
use super::tiles::Rows;
use super::{
    Attention, Bases, DK, DOUT, DQ, DV, K, LSE, OUT, Products, Q, ROWS, Scratch, Shape, V, Window, shape_of, visible,
};
use crate::emit::{Cmp, Elem, Emitter, Kernel, Val};
use crate::nest::points;

impl Emitter {
    /// Emits dq, dk and dv, those that have an address. The workspace has [`Attention::backward_workspace`] bytes.
    pub fn attention_grad(
        &mut self,
        kernel: &Kernel,
        attention: &Attention,
        bases: &Bases,
        window: Window,
        workspace: Val,
    ) {
        let bytes = self.i64(attention.scratch_bytes(self.cpu()) as i64);
        let start = self.mul(kernel.part, bytes);
        let most = attention.backward_parts(self.cpu());
        let group = attention.group_size();
        if bases[DQ].is_some() {
            let shape = shape_of(self, attention, attention.queries.size);
            let tasks = attention.query_tasks(self.cpu());
            let (from, to) = self.share(kernel, tasks, tasks.min(most));
            let sizes = [points(&attention.batch), attention.heads.size, attention.queries.size.div_ceil(shape.span)];
            self.for_each((from, to, 1), &[], |e, task, _| {
                let base = e.at_byte(workspace, start);
                let at = e.unravel(task, &sizes);
                let group = e.i64(group as i64);
                let place = Place { batch: at[0], head: at[1], kv_head: e.div_unsigned(at[1], group) };
                let span = e.i64(shape.span as i64);
                let first = e.mul(at[2], span);
                queries_task(e, (attention, window), bases, shape, Scratch { base, used: 0 }, &place, first);
                Vec::new()
            });
        }
        if bases[DK].is_some() || bases[DV].is_some() {
            let shape = shape_of(self, attention, attention.keys.size);
            let tasks = attention.key_tasks(self.cpu());
            let (from, to) = self.share(kernel, tasks, tasks.min(most));
            let sizes = [points(&attention.batch), attention.kv_heads.size, attention.keys.size.div_ceil(shape.span)];
            self.for_each((from, to, 1), &[], |e, task, _| {
                let base = e.at_byte(workspace, start);
                let at = e.unravel(task, &sizes);
                let span = e.i64(shape.span as i64);
                let first = e.mul(at[2], span);
                keys_task(e, (attention, window), bases, shape, Scratch { base, used: 0 }, (at[0], at[1]), first);
                Vec::new()
            });
        }
    }
}

/// dq of one block of queries; lanes are queries.
fn queries_task(
    e: &mut Emitter,
    (attention, window): (&Attention, Window),
    bases: &Bases,
    shape: Shape,
    mut scratch: Scratch,
    place: &Place,
    first: Val,
) {
    let tile = shape.depth * shape.span;
    let (q_columns, dout_columns, sums) = (scratch.take(e, tile), scratch.take(e, tile), scratch.take(e, tile));
    let (keys, values) = (scratch.take(e, ROWS * shape.stride), scratch.take(e, ROWS * shape.stride));
    let (scores, slopes) = (scratch.take(e, ROWS * shape.span), scratch.take(e, ROWS * shape.span));
    let line = scratch.take(e, shape.lanes * shape.lanes);
    let (lses, deltas) = (scratch.take(e, shape.span), scratch.take(e, shape.span));
    let products = Products { shape };

    let rows = |e: &mut Emitter, operand| attention.rows(e, bases, place, operand);
    let (Some(q), Some(k), Some(v)) = (rows(e, Q), rows(e, K), rows(e, V)) else { return };
    let (Some(out), Some(dout), Some(lse), Some(dq)) = (rows(e, OUT), rows(e, DOUT), rows(e, LSE), rows(e, DQ)) else {
        return;
    };
    let limit = attention.queries.size;
    e.transpose_rows(q, shape, first, limit, q_columns);
    e.transpose_rows(dout, shape, first, limit, dout_columns);
    e.transpose_rows(out, shape, first, limit, sums);
    let vf32 = e.vf32();
    e.for_count(shape.span, shape.lanes, |e, lane| {
        let none = e.vconst(0.0);
        let (zero, depth) = (e.i64(0), e.i64(shape.depth as i64));
        let delta = e.for_each((zero, depth, 1), &[none], |e, d, delta| {
            let span = e.i64(shape.span as i64);
            let index = e.mul(d, span);
            let index = e.add(index, lane);
            let (a, b) = (e.at(dout_columns, Elem::F32, index), e.at(sums, Elem::F32, index));
            let (a, b) = (e.load(a, vf32), e.load(b, vf32));
            vec![e.fma(a, b, delta[0])]
        });
        let at = e.at(deltas, Elem::F32, lane);
        e.store(delta[0], at);
        let query = e.add(first, lane);
        let size = e.i64(limit as i64);
        let left = e.sub(size, query);
        let mask = e.lanes_below(left);
        let stride = e.i64(lse.row_stride);
        let offset = e.mul(query, stride);
        let offset = e.add(lse.start, offset);
        let from = e.at(lse.base, Elem::F32, offset);
        let values = match lse.row_stride {
            0 => e.load_strided(from, Elem::F32, 1, Some(mask)),
            stride => e.load_strided(from, Elem::F32, stride, Some(mask)),
        };
        let at = e.at(lses, Elem::F32, lane);
        e.store(values, at);
    });
    e.clear(sums, tile);

    let (zero, span) = (e.i64(0), e.i64(shape.span as i64));
    let past = e.add(first, span);
    let end = window.last_key(e, attention, past);
    e.for_each((zero, end, ROWS as i64), &[], |e, key, _| {
        let left = e.sub(end, key);
        let most = e.i64(ROWS as i64);
        let count = e.min_int(left, most);
        e.copy_rows(k, shape, key, count, keys);
        e.copy_rows(v, shape, key, count, values);
        products.scores(e, keys, q_columns, scores, count, attention.head.size);
        products.scores(e, values, dout_columns, slopes, count, attention.head.size);
        e.for_count(shape.span, shape.lanes, |e, lane| {
            let block = Block { shape, first, key, count, lane };
            let (lse, delta) = (e.at(lses, Elem::F32, lane), e.at(deltas, Elem::F32, lane));
            let (lse, delta) = (e.load(lse, vf32), e.load(delta, vf32));
            let edge = attention.causal.then(|| block.edge(e, window));
            let zero = e.i64(0);
            e.for_each((zero, count, 1), &[], |e, row, _| {
                let (score_at, slope_at) = (block.cell(e, scores, row), block.cell(e, slopes, row));
                let edge = edge.map(|edge| {
                    let row = e.truncate(row, Elem::I32);
                    let row = e.splat(row);
                    e.sub(edge, row)
                });
                let (_, slope) = slope(e, attention, (score_at, slope_at), (lse, delta), edge);
                e.store(slope, score_at);
                Vec::new()
            });
        });
        products.weigh(e, keys, scores, sums, count);
        Vec::new()
    });
    e.store_transposed(dq, shape, (first, limit), (sums, line), |_, sum, _| sum);
}

/// The weight and the gradient of the score of one vector.
fn slope(
    e: &mut Emitter,
    attention: &Attention,
    (score_at, slope_at): (Val, Val),
    (lse, delta): (Val, Val),
    edge: Option<Val>,
) -> (Val, Val) {
    let vf32 = e.vf32();
    let scale = e.vconst(attention.scale() as f32);
    let score = e.load(score_at, vf32);
    let score = e.mul(score, scale);
    let mut exponent = e.sub(score, lse);
    if let Some(edge) = edge {
        exponent = visible(e, exponent, edge);
    }
    let weight = e.exp(exponent);
    let slope = e.load(slope_at, vf32);
    let centred = e.sub(slope, delta);
    let slope = e.mul(weight, centred);
    (weight, e.mul(slope, scale))
}

/// dk and dv of one block of keys; lanes are keys.
fn keys_task(
    e: &mut Emitter,
    (attention, window): (&Attention, Window),
    bases: &Bases,
    shape: Shape,
    mut scratch: Scratch,
    (batch, kv_head): (Val, Val),
    first: Val,
) {
    let tile = shape.depth * shape.span;
    let (k_columns, v_columns) = (scratch.take(e, tile), scratch.take(e, tile));
    let (k_sums, v_sums) = (scratch.take(e, tile), scratch.take(e, tile));
    let queries = scratch.take(e, ROWS * shape.stride);
    let (outs, douts) = (scratch.take(e, ROWS * shape.stride), scratch.take(e, ROWS * shape.stride));
    let (weights, slopes) = (scratch.take(e, ROWS * shape.span), scratch.take(e, ROWS * shape.span));
    let line = scratch.take(e, shape.lanes * shape.lanes);
    let products = Products { shape };
    let limit = attention.keys.size;

    let zero = e.i64(0);
    let place = Place { batch, head: zero, kv_head };
    let (Some(k), Some(v)) = (attention.rows(e, bases, &place, K), attention.rows(e, bases, &place, V)) else { return };
    e.transpose_rows(k, shape, first, limit, k_columns);
    e.transpose_rows(v, shape, first, limit, v_columns);
    e.clear(k_sums, tile);
    e.clear(v_sums, tile);

    let group = attention.group_size();
    e.for_count(group, 1, |e, member| {
        let size = e.i64(group as i64);
        let head = e.mul(kv_head, size);
        let head = e.add(head, member);
        let place = Place { batch, head, kv_head };
        let rows = |e: &mut Emitter, operand| attention.rows(e, bases, &place, operand);
        let (Some(q), Some(out), Some(dout), Some(lse)) = (rows(e, Q), rows(e, OUT), rows(e, DOUT), rows(e, LSE))
        else {
            return;
        };
        let mut end = e.i64(attention.queries.size as i64);
        if attention.windowed {
            let there = e.cmp(Cmp::Lt, first, window.length);
            end = e.select(there, end, zero);
        }
        // The first query that sees the first key, at the start of its tile.
        let start = match attention.causal {
            false => zero,
            true => {
                let seen = e.sub(first, window.reach);
                let seen = e.max_int(seen, zero);
                let most = e.i64(ROWS as i64);
                let tiles = e.div_unsigned(seen, most);
                e.mul(tiles, most)
            }
        };
        e.for_each((start, end, ROWS as i64), &[], |e, query, _| {
            let left = e.sub(end, query);
            let most = e.i64(ROWS as i64);
            let count = e.min_int(left, most);
            e.copy_rows(q, shape, query, count, queries);
            e.copy_rows(out, shape, query, count, outs);
            e.copy_rows(dout, shape, query, count, douts);
            products.scores(e, queries, k_columns, weights, count, attention.head.size);
            products.scores(e, douts, v_columns, slopes, count, attention.head.size);
            let tiles = (outs, douts, weights, slopes);
            weigh_queries(e, (attention, window), shape, lse, (query, count), first, tiles);
            products.weigh(e, douts, weights, v_sums, count);
            products.weigh(e, queries, slopes, k_sums, count);
            Vec::new()
        });
    });
    for (operand, sums) in [(DK, k_sums), (DV, v_sums)] {
        if let Some(rows) = attention.rows(e, bases, &place, operand) {
            e.store_transposed(rows, shape, (first, limit), (sums, line), |e, sum, lane| {
                if !attention.windowed {
                    return sum;
                }
                // Lanes of keys that are not there hold what those made of theirs.
                let key = e.add(first, lane);
                let left = e.sub(window.length, key);
                let (there, none) = (e.lanes_below(left), e.vconst(0.0));
                e.select(there, sum, none)
            });
        }
    }
}

/// Turns scores into weights, and products of dout and v into gradients of scores, row by row.
fn weigh_queries(
    e: &mut Emitter,
    (attention, window): (&Attention, Window),
    shape: Shape,
    lse: Rows,
    (query, count): (Val, Val),
    first: Val,
    (outs, douts, weights, slopes): (Val, Val, Val, Val),
) {
    let vf32 = e.vf32();
    let zero = e.i64(0);
    e.for_each((zero, count, 1), &[], |e, row, _| {
        let stride = e.i64(shape.stride as i64);
        let line = e.mul(row, stride);
        let (out, dout) = (e.at(outs, Elem::F32, line), e.at(douts, Elem::F32, line));
        let none = e.vconst(0.0);
        let depth = e.i64(shape.depth as i64);
        let delta = e.for_each((zero, depth, shape.lanes as i64), &[none], |e, d, delta| {
            let (a, b) = (e.at(dout, Elem::F32, d), e.at(out, Elem::F32, d));
            let (a, b) = (e.load(a, vf32), e.load(b, vf32));
            vec![e.fma(a, b, delta[0])]
        });
        let delta = e.sum_lanes(delta[0]);
        let delta = e.splat(delta);
        let at = e.add(query, row);
        let lse_stride = e.i64(lse.row_stride);
        let offset = e.mul(at, lse_stride);
        let offset = e.add(lse.start, offset);
        let from = e.at(lse.base, Elem::F32, offset);
        let lse = e.load_wide(from, Elem::F32, 0, None);
        let lse = e.splat(lse);
        e.for_count(shape.span, shape.lanes, |e, lane| {
            let block = Block { shape, first: zero, key: zero, count, lane };
            let (weight_at, slope_at) = (block.cell(e, weights, row), block.cell(e, slopes, row));
            let edge = attention.causal.then(|| {
                // query + reach - key, keys along the lanes.
                let ahead = e.add(at, window.reach);
                let key = e.add(first, lane);
                let ahead = e.sub(ahead, key);
                let ahead = e.truncate(ahead, Elem::I32);
                let ahead = e.splat(ahead);
                let steps = e.steps(ahead.ty);
                e.sub(ahead, steps)
            });
            let (weight, slope) = slope(e, attention, (weight_at, slope_at), (lse, delta), edge);
            e.store(weight, weight_at);
            e.store(slope, slope_at);
        });
        Vec::new()
    });
}
