//! Sums and maxima over dims, and sums of rows by number.

use ir::ops::ScatterAdd;
use types::Name;

use super::cx::Cx;
use crate::dtype::DataType;
use crate::graph::Tensor;
use crate::table::Op;

pub fn reduce(cx: &mut Cx<'_>, op: Op, dims: &[Name]) -> Vec<Tensor> {
    let axes: Vec<i64> = dims.iter().filter_map(|d| cx.of(0).position(d)).map(|p| p as i64).collect();
    let axes = cx.g.ints(&axes);
    vec![cx.through(op, &[cx.arg(0), axes], 1, &[])]
}

/// The dims of the numbers go in front, where UnsortedSegmentSum wants them, and the sum is kept in f32.
pub fn scatter_add(cx: &mut Cx<'_>, op: &ScatterAdd) -> Vec<Tensor> {
    let (updates, ids, dtype) = (cx.of(0), cx.of(1), cx.dtype(cx.arg(0)));
    let at = ids.dims.first().and_then(|d| updates.position(&d.name)).unwrap_or(0);
    let (own, count) = (updates.rank(), ids.rank());
    let mut order: Vec<usize> = (at..at + count).collect();
    order.extend((0..at).chain(at + count..own));
    let mut rows = cx.transpose(cx.arg(0), &order);
    let mut numbers = cx.arg(1);
    if count == 0 {
        // A single number is a list of one.
        let shape = [&[1], cx.g.shape(rows).as_slice()].concat();
        (rows, numbers) = (cx.reshape(rows, &shape), cx.reshape(numbers, &[1]));
    }
    let wide = if dtype.is_half() { DataType::Float } else { dtype };
    let rows = cx.cast(rows, wide);
    let size = cx.g.int(op.dim.size as i64);
    let sum = cx.g.op(Op::UnsortedSegmentSum, &[rows, numbers, size], &[]);
    let sum = cx.move_dim(sum, 0, at);
    vec![cx.cast(sum, dtype)]
}
