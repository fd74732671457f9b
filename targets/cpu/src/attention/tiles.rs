//! Tiles in scratch: rows copied as they lie, and operands transposed so that lanes run along their rows.

use super::Shape;
use crate::emit::{Elem, Emitter, Val};

/// Rows of one operand: element `(row, d)` is `start + row * row_stride + d * depth_stride`.
#[derive(Clone, Copy)]
pub struct Rows {
    pub base: Val,
    pub elem: Elem,
    pub start: Val,
    pub row_stride: i64,
    pub depth_stride: i64,
    /// Width of a row.
    pub depth: u64,
}

impl Rows {
    /// The address of `(row, d)`.
    fn at(&self, e: &mut Emitter, row: Val, d: Val) -> Val {
        let (row_stride, depth_stride) = (e.i64(self.row_stride), e.i64(self.depth_stride));
        let (row, d) = (e.mul(row, row_stride), e.mul(d, depth_stride));
        let offset = e.add(self.start, row);
        let offset = e.add(offset, d);
        e.at(self.base, self.elem, offset)
    }
}

impl Emitter {
    /// Copies `count` rows from `first` on, widened, padded with zeros to the tile's depth.
    pub(super) fn copy_rows(&mut self, rows: Rows, shape: Shape, first: Val, count: Val, to: Val) {
        let zero = self.i64(0);
        let lanes = shape.lanes;
        self.for_each((zero, count, 1), &[], |e, row, _| {
            let stride = e.i64(shape.stride as i64);
            let line = e.mul(row, stride);
            let line = e.at(to, Elem::F32, line);
            let row = e.add(first, row);
            e.for_count(shape.depth, lanes, |e, d| {
                let mask = depth_mask(e, rows.depth, d);
                let from = rows.at(e, row, d);
                let values = e.load_strided(from, rows.elem, rows.depth_stride, mask);
                let to = e.at(line, Elem::F32, d);
                e.store(values, to);
            });
            Vec::new()
        });
    }

    /// `to[d, lane]` of the rows from `first` on; rows from `limit` on repeat the last.
    pub(super) fn transpose_rows(&mut self, rows: Rows, shape: Shape, first: Val, limit: u64, to: Val) {
        let lanes = shape.lanes;
        self.for_count(shape.span, lanes, |e, lane| {
            e.for_count(shape.depth, lanes, |e, d| {
                let mask = depth_mask(e, rows.depth, d);
                let start = e.add(first, lane);
                let last = e.i64(limit as i64 - 1);
                let mut square = Vec::new();
                for offset in 0..lanes {
                    let offset = e.i64(offset as i64);
                    let row = e.add(start, offset);
                    let row = e.min_int(row, last);
                    let from = rows.at(e, row, d);
                    square.push(e.load_strided(from, rows.elem, rows.depth_stride, mask));
                }
                let span = e.i64(shape.span as i64);
                let line = e.mul(d, span);
                let line = e.add(line, lane);
                let line = e.at(to, Elem::F32, line);
                for (offset, values) in e.transpose(square).into_iter().enumerate() {
                    let offset = e.i64((offset as u64 * shape.span) as i64);
                    let to = e.at(line, Elem::F32, offset);
                    e.store(values, to);
                }
            });
        });
    }

    /// The inverse: stores `from[d, lane]` as rows, as many as there are below `limit`; `finish` gets each vector of
    /// lanes before it is turned, and the lane it starts at.
    pub(super) fn store_transposed(
        &mut self,
        rows: Rows,
        shape: Shape,
        (first, limit): (Val, u64),
        (from, line): (Val, Val),
        mut finish: impl FnMut(&mut Emitter, Val, Val) -> Val,
    ) {
        let lanes = shape.lanes;
        self.for_count(shape.span, lanes, |e, lane| {
            e.for_count(shape.depth, lanes, |e, d| {
                let span = e.i64(shape.span as i64);
                let start = e.mul(d, span);
                let start = e.add(start, lane);
                let start = e.at(from, Elem::F32, start);
                let vf32 = e.vf32();
                let mut square = Vec::new();
                for offset in 0..lanes {
                    let offset = e.i64((offset * shape.span) as i64);
                    let at = e.at(start, Elem::F32, offset);
                    let values = e.load(at, vf32);
                    square.push(finish(e, values, lane));
                }
                // Through scratch, so that the rows can be stored in a loop that stops at the last.
                for (offset, values) in e.transpose(square).into_iter().enumerate() {
                    let offset = e.i64((offset as u64 * lanes) as i64);
                    let to = e.at(line, Elem::F32, offset);
                    e.store(values, to);
                }
                let mask = depth_mask(e, rows.depth, d);
                let zero = e.i64(0);
                let start = e.add(first, lane);
                let limit = e.i64(limit as i64);
                let count = e.sub(limit, start);
                let width = e.i64(lanes as i64);
                let count = e.min_int(count, width);
                e.for_each((zero, count, 1), &[], |e, row, _| {
                    let offset = e.mul(row, width);
                    let at = e.at(line, Elem::F32, offset);
                    let values = e.load(at, vf32);
                    let row = e.add(start, row);
                    let to = rows.at(e, row, d);
                    e.store_strided(values, to, rows.elem, rows.depth_stride, mask);
                    Vec::new()
                });
            });
        });
    }

    /// Sets `floats` elements, a whole number of vectors, to zero.
    pub(super) fn clear(&mut self, to: Val, floats: u64) {
        let lanes = u64::from(self.lanes());
        self.for_count(floats, lanes, |e, index| {
            let zero = e.vconst(0.0);
            let at = e.at(to, Elem::F32, index);
            e.store(zero, at);
        });
    }
}

/// The lanes of a vector at `d` that lie inside of a row.
fn depth_mask(e: &mut Emitter, depth: u64, d: Val) -> Option<Val> {
    if depth.is_multiple_of(u64::from(e.lanes())) {
        return None;
    }
    let depth = e.i64(depth as i64);
    let left = e.sub(depth, d);
    Some(e.lanes_below(left))
}
