//! Packs columns of the right operand into panels of words: for each word of K, one of each column.

use super::blocks::{Panels, Span};
use super::rows::{Source, run_of_words};
use super::{Matmul, RHS, Tiling};
use crate::emit::{Cmp, Elem, Emitter, Val};
use crate::nest::{Dim, points};

/// Packs panels of columns. Columns past the end hold anything; their results are dropped.
pub fn pack(e: &mut Emitter, matmul: &Matmul, tiling: &Tiling, base: Val, span: &Span, (n, to): (Panels, Val)) {
    let stride = matmul.depth().1.strides[RHS];
    let source = Source { base, elem: matmul.rhs, word: tiling.word, stride };
    let place = Place { matmul, tiling, start: span.offset(e, matmul, RHS), n, to };
    let zero = e.i64(0);
    match stride == 1 && matmul.columns().1.strides[RHS] != 1 {
        true => place.each_vector(e, |e, columns, to| turned(e, &source, columns, (to, tiling.width), span)),
        // Memory is read along the columns.
        false => e.for_range((zero, span.words, 1), |e, k| {
            let width = e.i64(tiling.width as i64);
            let line = e.mul(k, width);
            place.each_vector(e, |e, columns, to| {
                let to = e.at(to, Elem::F32, line);
                straight(e, &source, columns, to, (k, span));
            });
        }),
    }
}

/// Panels, and where they go.
struct Place<'a> {
    matmul: &'a Matmul,
    tiling: &'a Tiling,
    /// The offset of the operand.
    start: Val,
    n: Panels,
    to: Val,
}

impl Place<'_> {
    /// Calls `body` for each vector of each panel, with its place in the panel.
    fn each_vector(&self, e: &mut Emitter, mut body: impl FnMut(&mut Emitter, &Columns<'_>, Val)) {
        let Place { matmul, tiling, start, n, to } = *self;
        let (n_outer, n_inner) = matmul.columns();
        let zero = e.i64(0);
        e.for_range((zero, n.count, 1), |e, panel| {
            let size = e.i64(tiling.panel_words() as i64);
            let to_panel = e.mul(panel, size);
            let to_panel = e.at(to, Elem::F32, to_panel);
            let index = e.add(n.first, panel);
            let at = e.unravel(index, &[points(n_outer), tiling.run_panels]);
            let outer = e.offset_linear(n_outer, at[0], RHS);
            let start = e.add(start, outer);
            let width = e.i64(tiling.width as i64);
            let first = e.mul(at[1], width);
            let whole = n_inner.size.is_multiple_of(tiling.width);
            for vector in 0..tiling.vectors {
                let column = e.i64(i64::from(vector * e.lanes()));
                let first = e.add(first, column);
                let to = e.at(to_panel, Elem::F32, column);
                body(e, &Columns { dim: n_inner, whole, first, start }, to);
            }
        });
    }
}

/// One vector of columns of the innermost run.
struct Columns<'a> {
    dim: &'a Dim,
    /// No panel reaches beyond the run.
    whole: bool,
    first: Val,
    /// The offset of the run.
    start: Val,
}

impl Columns<'_> {
    /// Columns from the first on.
    fn left(&self, e: &mut Emitter) -> Val {
        let total = if self.whole { i64::from(e.lanes()) } else { self.dim.size as i64 };
        let total = e.i64(total);
        if self.whole { total } else { e.sub(total, self.first) }
    }
}

/// One word of K.
fn straight(e: &mut Emitter, source: &Source, columns: &Columns<'_>, to: Val, (k, span): (Val, &Span)) {
    let stride = columns.dim.strides[RHS];
    let step = e.i64(stride);
    let from = e.mul(columns.first, step);
    let from = e.add(columns.start, from);
    let left = columns.left(e);
    let mask = e.lanes_below(left);
    source.prefetch(e, from, k);
    // A single column has no stride: the other lanes do not exist.
    let values = source.words(e, from, (k, span), stride.max(1), Some(mask));
    e.store(values, to);
}

/// Columns that are contiguous along K: squares of words are turned in registers.
fn turned(e: &mut Emitter, source: &Source, columns: &Columns<'_>, (to, width): (Val, u64), span: &Span) {
    let zero = e.i64(0);
    let lanes = e.lanes();
    let step = e.i64(columns.dim.strides[RHS]);
    let last = e.i64(columns.dim.size as i64 - 1);
    // Where there are no columns at all nothing reads the panel.
    let left = columns.left(e);
    let squares = |e: &mut Emitter| {
        e.for_range((zero, span.words, i64::from(lanes)), |e, word| {
            let mut square = Vec::new();
            for lane in 0..lanes {
                let lane = e.i64(i64::from(lane));
                let column = e.add(columns.first, lane);
                let column = e.min_int(column, last);
                let offset = e.mul(column, step);
                let offset = e.add(columns.start, offset);
                let from = e.at(source.base, source.elem, offset);
                square.push(run_of_words(e, source, from, word, span));
            }
            let line = e.i64(width as i64);
            let first = e.mul(word, line);
            let to = e.at(to, Elem::F32, first);
            for (row, values) in e.transpose(square).into_iter().enumerate() {
                let index = e.i64(row as i64 * width as i64);
                let to = e.at(to, Elem::F32, index);
                e.store(values, to);
            }
        });
    };
    if columns.whole {
        return squares(e);
    }
    let exists = e.cmp(Cmp::Gt, left, zero);
    e.if_then(exists, squares);
}
