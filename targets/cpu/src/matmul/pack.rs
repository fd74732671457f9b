//! Copies blocks of the operands into the order in which the inner kernel reads them, widened to `f32`.

use super::{LHS, Matmul, RHS, Tiling};
use crate::emit::{Elem, Emitter, Ty, Val};
use crate::nest::{Dim, points};

/// The part of K being packed.
pub struct Span {
    pub batch: Val,
    pub k_outer: Val,
    pub first_k: Val,
    pub k: Val,
}

/// Where a panel of A keeps an element: `row * row + k * k`.
#[derive(Clone, Copy)]
pub struct Layout {
    pub row: i64,
    pub k: i64,
}

/// A panel keeps rows whole where the operand does: no transposition is then needed.
pub fn lhs_layout(matmul: &Matmul, tiling: &Tiling) -> Layout {
    match rows_whole(matmul) {
        true => Layout { row: tiling.kc_padded as i64, k: 1 },
        false => Layout { row: 1, k: i64::from(tiling.rows) },
    }
}

fn rows_whole(matmul: &Matmul) -> bool {
    let (_, inner) = matmul.depth();
    inner.strides[LHS] == 1 || inner.size == 1
}

/// The offset of an operand at the start of a span.
fn span_offset(e: &mut Emitter, matmul: &Matmul, span: &Span, operand: usize) -> Val {
    let (outer, inner) = matmul.depth();
    let batch = e.offset_linear(&matmul.batch, span.batch, operand);
    let k_outer = e.offset_linear(outer, span.k_outer, operand);
    let stride = e.i64(inner.strides[operand]);
    let k_inner = e.mul(span.first_k, stride);
    let sum = e.add(batch, k_outer);
    e.add(sum, k_inner)
}

/// Packs panels of rows of the left operand.
pub fn lhs(
    e: &mut Emitter,
    matmul: &Matmul,
    tiling: &Tiling,
    base: Val,
    span: &Span,
    (first_panel, panels, to): (Val, Val, Val),
) {
    let start = span_offset(e, matmul, span, LHS);
    let zero = e.i64(0);
    let rows = e.i64(i64::from(tiling.rows));
    let total = points(&matmul.m) as i64;
    let k_stride = matmul.depth().1.strides[LHS];
    let layout = lhs_layout(matmul, tiling);
    e.for_range((zero, panels, 1), |e, panel| {
        let size = e.i64((u64::from(tiling.rows) * tiling.kc_padded) as i64);
        let to_panel = e.mul(panel, size);
        let to_panel = e.at(to, Elem::F32, to_panel);
        let first = e.add(first_panel, panel);
        let first = e.mul(first, rows);
        if let ([dim], false) = (matmul.m.as_slice(), rows_whole(matmul))
            && dim.strides[LHS] == 1
        {
            let left = e.i64(total);
            let left = e.sub(left, first);
            let from = e.add(start, first);
            return across_rows(e, matmul, tiling, (base, from, to_panel), left, span.k);
        }
        e.for_count(u64::from(tiling.rows), 1, |e, row| {
            // Rows past the end repeat the last one; their results are dropped.
            let m = e.add(first, row);
            let last = e.i64(total - 1);
            let m = e.min_int(m, last);
            let offset = e.offset_linear(&matmul.m, m, LHS);
            let from = e.add(start, offset);
            let row_step = e.i64(layout.row);
            let to_row = e.mul(row, row_step);
            let to_row = e.at(to_panel, Elem::F32, to_row);
            if rows_whole(matmul) {
                let from = e.at(base, matmul.lhs, from);
                copy_run(e, from, matmul.lhs, to_row, span.k);
            } else {
                e.for_range((zero, span.k, 1), |e, k| {
                    let (a, b) = (e.i64(k_stride), e.i64(layout.k));
                    copy_one(e, (base, matmul.lhs, from, a), (to_row, b), k);
                });
            }
        });
    });
}

/// Packs one panel of an operand whose rows are neighbours in memory: a short vector for each k.
fn across_rows(
    e: &mut Emitter,
    matmul: &Matmul,
    tiling: &Tiling,
    (base, from, to): (Val, Val, Val),
    left: Val,
    k: Val,
) {
    let zero = e.i64(0);
    let stride = matmul.depth().1.strides[LHS];
    let ty = Ty::vector(Elem::I32, tiling.rows);
    let steps = e.steps(ty);
    let narrow = e.truncate(left, Elem::I32);
    let bound = e.broadcast(narrow, tiling.rows);
    let mask = e.cmp(crate::emit::Cmp::Lt, steps, bound);
    e.for_range((zero, k, 1), |e, k| {
        let stride = e.i64(stride);
        let offset = e.mul(k, stride);
        let offset = e.add(from, offset);
        let at = e.at(base, matmul.lhs, offset);
        let values = e.load_wide(at, matmul.lhs, tiling.rows, Some(mask));
        let rows = e.i64(i64::from(tiling.rows));
        let index = e.mul(k, rows);
        let to = e.at(to, Elem::F32, index);
        e.store(values, to);
    });
}

/// Copies `count` neighbours, widened.
fn copy_run(e: &mut Emitter, from: Val, elem: Elem, to: Val, count: Val) {
    let lanes = e.lanes();
    let zero = e.i64(0);
    e.for_range((zero, count, i64::from(lanes)), |e, k| {
        let left = e.sub(count, k);
        let mask = e.lanes_below(left);
        let from = e.at(from, elem, k);
        let values = e.load_wide(from, elem, lanes, Some(mask));
        let to = e.at(to, Elem::F32, k);
        // Past the end there is padding.
        e.store(values, to);
    });
}

fn copy_one(e: &mut Emitter, (base, elem, from, step): (Val, Elem, Val, Val), (to, to_step): (Val, Val), index: Val) {
    let offset = e.mul(index, step);
    let offset = e.add(from, offset);
    let at = e.at(base, elem, offset);
    let value = e.load_wide(at, elem, 0, None);
    let index = e.mul(index, to_step);
    let to = e.at(to, Elem::F32, index);
    e.store(value, to);
}

/// Packs panels of columns of the right operand; columns past the end are zero.
pub fn rhs(
    e: &mut Emitter,
    matmul: &Matmul,
    tiling: &Tiling,
    base: Val,
    span: &Span,
    (first_panel, panels, to): (Val, Val, Val),
) {
    let start = span_offset(e, matmul, span, RHS);
    let (n_outer, n_inner) = matmul.columns();
    let zero = e.i64(0);
    let lanes = u64::from(e.lanes());
    e.for_range((zero, panels, 1), |e, panel| {
        let size = e.i64((tiling.width * tiling.kc_padded) as i64);
        let to_panel = e.mul(panel, size);
        let to_panel = e.at(to, Elem::F32, to_panel);
        let index = e.add(first_panel, panel);
        let at = e.unravel(index, &[points(n_outer), tiling.run_panels]);
        let outer = e.offset_linear(n_outer, at[0], RHS);
        let start = e.add(start, outer);
        let width = e.i64(tiling.width as i64);
        let first = e.mul(at[1], width);
        e.for_count(u64::from(tiling.vectors), 1, |e, vector| {
            let width = e.i64(lanes as i64);
            let column = e.mul(vector, width);
            let n = e.add(first, column);
            let to = e.at(to_panel, Elem::F32, column);
            let total = e.i64(n_inner.size as i64);
            let left = e.sub(total, n);
            let k_stride = matmul.depth().1.strides[RHS];
            let source = Source { base, elem: matmul.rhs, start, n_dim: n_inner, k_stride };
            match k_stride == 1 && n_inner.strides[RHS] != 1 {
                true => transposed_columns(e, &source, n, left, (to, tiling), span.k),
                false => straight_columns(e, &source, n, left, (to, tiling), span.k),
            }
        });
    });
}

struct Source<'a> {
    base: Val,
    elem: Elem,
    start: Val,
    n_dim: &'a Dim,
    k_stride: i64,
}

/// One vector of columns, row by row of K.
fn straight_columns(e: &mut Emitter, source: &Source<'_>, n: Val, left: Val, (to, tiling): (Val, &Tiling), k: Val) {
    let zero = e.i64(0);
    let n_stride = source.n_dim.strides[RHS];
    let mask = e.lanes_below(left);
    let step = e.i64(n_stride);
    let from = e.mul(n, step);
    let from = e.add(source.start, from);
    e.for_range((zero, k, 1), |e, k| {
        let k_step = e.i64(source.k_stride);
        let offset = e.mul(k, k_step);
        let offset = e.add(from, offset);
        let at = e.at(source.base, source.elem, offset);
        let values = match n_stride {
            // A single column: the other lanes do not exist.
            0 => e.load_strided(at, source.elem, 1, Some(mask)),
            _ => e.load_strided(at, source.elem, n_stride, Some(mask)),
        };
        let width = e.i64(tiling.width as i64);
        let index = e.mul(k, width);
        let to = e.at(to, Elem::F32, index);
        e.store(values, to);
    });
}

/// One vector of columns that are contiguous along K: squares are transposed in registers.
fn transposed_columns(e: &mut Emitter, source: &Source<'_>, n: Val, left: Val, (to, tiling): (Val, &Tiling), k: Val) {
    let zero = e.i64(0);
    let lanes = e.lanes();
    let n_step = e.i64(source.n_dim.strides[RHS]);
    let last = e.i64(source.n_dim.size as i64 - 1);
    // Where there are no columns at all nothing reads the panel.
    let exists = e.cmp(crate::emit::Cmp::Gt, left, zero);
    e.if_then(exists, |e| {
        e.for_range((zero, k, i64::from(lanes)), |e, first_k| {
            let k_left = e.sub(k, first_k);
            let mask = e.lanes_below(k_left);
            let mut rows = Vec::new();
            for lane in 0..lanes {
                // Columns past the end repeat the last one; their results are dropped.
                let lane = e.i64(i64::from(lane));
                let column = e.add(n, lane);
                let column = e.min_int(column, last);
                let offset = e.mul(column, n_step);
                let offset = e.add(source.start, offset);
                let offset = e.add(offset, first_k);
                let at = e.at(source.base, source.elem, offset);
                rows.push(e.load_wide(at, source.elem, lanes, Some(mask)));
            }
            let width = e.i64(tiling.width as i64);
            let first = e.mul(first_k, width);
            let to = e.at(to, Elem::F32, first);
            for (row, values) in e.transpose(rows).into_iter().enumerate() {
                let index = e.i64(row as i64 * tiling.width as i64);
                let to = e.at(to, Elem::F32, index);
                e.store(values, to);
            }
        });
    });
}
