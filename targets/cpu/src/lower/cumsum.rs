//! Kernels of one cumulative sum: each row is added up in order, many side by side in lanes where rows are no runs.
//!
//! Sums are `f64`, or `i64` of whole numbers, and each is rounded once.

use ir::{Function, NodeId};

use super::apply::{held, load, store};
use super::rows::Rows;
use super::{LowerError, Needs, Pointers};
use crate::emit::{Elem, Emitter, Kernel, Ty, Val};

pub struct CumsumKernel {
    rows: Rows,
    reverse: bool,
}

impl CumsumKernel {
    pub fn new(function: &Function, node: NodeId, op: &ir::ops::Cumsum) -> Result<CumsumKernel, LowerError> {
        Ok(CumsumKernel { rows: Rows::new(function, node, &op.dim)?, reverse: op.reverse })
    }

    /// Rows that one part adds up at once.
    fn width(&self, lanes: u32) -> u64 {
        if self.rows.inner == 1 { 1 } else { u64::from(lanes) }
    }

    fn shares(&self, lanes: u32) -> u64 {
        self.rows.outer * self.rows.inner.div_ceil(self.width(lanes))
    }

    pub fn needs(&self, lanes: u32) -> Needs {
        Needs { workspace: 0, parts: self.shares(lanes).min(256), in_place: Vec::new() }
    }

    pub fn emit(&self, e: &mut Emitter, kernel: &Kernel, pointers: &Pointers) -> Result<(), LowerError> {
        let rows = &self.rows;
        let (x, out) = (rows.operand(pointers)?, pointers.results[0]);
        let (width, count) = (self.width(e.lanes()), self.shares(e.lanes()));
        let (from, to) = e.share(kernel, count, count.min(256));
        e.for_each((from, to, 1), &[], |e, index, _| {
            let at = e.unravel(index, &[rows.outer, rows.inner.div_ceil(width)]);
            let step = e.i64(width as i64);
            let first = e.mul(at[1], step);
            let (lanes, mask) = match width {
                1 => (0, None),
                _ => {
                    let end = e.i64(rows.inner as i64);
                    (e.lanes(), e.lanes_before((first, end), rows.inner))
                }
            };
            let start = rows.start(e, at[0], first);
            self.row(e, [x, out], start, lanes, mask);
            Vec::new()
        });
        Ok(())
    }

    fn row(&self, e: &mut Emitter, [x, out]: [Val; 2], start: Val, lanes: u32, mask: Option<Val>) {
        let rows = &self.rows;
        let (own, elem) = (held(rows.dtype), rows.elem());
        let wide = Ty::vector(if own.is_float() { Elem::F64 } else { Elem::I64 }, lanes);
        let sum = if own.is_float() { e.float(wide, 0.0) } else { e.int(wide, 0) };
        let (zero, size, last) = (e.i64(0), e.i64(rows.size as i64), e.i64(rows.size as i64 - 1));
        e.for_each((zero, size, 1), &[sum], |e, k, carried| {
            let k = if self.reverse { e.sub(last, k) } else { k };
            let place = rows.place(e, start, k);
            let from = e.at(x, elem, place);
            let value = load(e, from, rows.dtype, lanes, mask);
            let value =
                if own.is_float() { e.extend_float(value, Elem::F64) } else { e.extend_signed(value, Elem::I64) };
            let sum = e.add(carried[0], value);
            let value = if own.is_float() { e.round_float(sum, own) } else { e.truncate(sum, own) };
            let to = e.at(out, elem, place);
            store(e, value, to, rows.dtype, mask);
            vec![sum]
        });
    }
}
