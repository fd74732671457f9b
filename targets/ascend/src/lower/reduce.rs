//! Sums and maxima over dims and along them, and sums of rows by number.

use ir::ops::{Cumsum, ScatterAdd};
use types::Name;

use super::cx::Cx;
use crate::dtype::DataType;
use crate::graph::Tensor;
use crate::infer::Value;
use crate::table::Op;

pub fn reduce(cx: &mut Cx<'_>, op: Op, dims: &[Name]) -> Vec<Tensor> {
    let axes: Vec<i64> = dims.iter().filter_map(|d| cx.of(0).position(d)).map(|p| p as i64).collect();
    let axes = cx.g.ints(&axes);
    vec![cx.through(op, &[cx.arg(0), axes], 1, &[])]
}

/// Sums are kept in f32.
pub fn cumsum(cx: &mut Cx<'_>, op: &Cumsum) -> Vec<Tensor> {
    let (x, dtype) = (cx.arg(0), cx.dtype(cx.arg(0)));
    let x = cx.cast(x, if dtype.is_half() { DataType::Float } else { dtype });
    let axis = cx.g.int(cx.of(0).position(&op.dim).unwrap_or(0) as i64);
    let sums = cx.g.op(Op::Cumsum, &[x, axis], &[("reverse", Value::Bool(op.reverse))]);
    vec![cx.cast(sums, dtype)]
}

/// The rows of all tables as those of one, numbered on.
fn scatter_add_batched(cx: &mut Cx<'_>, op: &ScatterAdd) -> Vec<Tensor> {
    let (updates, ids, dtype) = (cx.of(0), cx.of(1), cx.dtype(cx.arg(0)));
    let picked = op.picked(updates, ids).unwrap_or(0..0);
    let is_batch = |p: &usize| op.batch.contains(&updates.dims[*p].name);
    let batch: Vec<usize> = (0..updates.rank()).filter(is_batch).collect();
    let rest: Vec<usize> = (0..updates.rank()).filter(|p| !is_batch(p) && !picked.contains(p)).collect();
    let named = |places: &[usize]| places.iter().map(|&p| updates.dims[p].size as i64).collect::<Vec<_>>();
    let own: Vec<usize> = picked.clone().collect();
    let order = [&batch[..], &own, &rest].concat();
    let of_ids: Vec<usize> = order.iter().filter_map(|&p| ids.position(&updates.dims[p].name)).collect();
    let (tables, count) = (named(&batch).iter().product::<i64>(), named(&own).iter().product::<i64>());
    let wide = if dtype.is_half() { DataType::Float } else { dtype };
    let rows = cx.transpose(cx.arg(0), &order);
    let rows = cx.cast(rows, wide);
    let rows = cx.reshape(rows, &[&[tables * count], &named(&rest)[..]].concat());
    let numbers = cx.transpose(cx.arg(1), &of_ids);
    let numbers = cx.cast(numbers, DataType::Int64);
    let numbers = cx.reshape(numbers, &[tables, count]);
    let (first, size) = (cx.count_up(tables), op.dim.size as i64);
    let size_of_one = cx.g.int(size);
    let first = cx.g.op(Op::Mul, &[first, size_of_one], &[]);
    let first = cx.reshape(first, &[tables, 1]);
    let numbers = cx.g.op(Op::Add, &[numbers, first], &[]);
    let numbers = cx.reshape(numbers, &[tables * count]);
    let all = cx.g.int(tables * size);
    let sum = cx.g.op(Op::UnsortedSegmentSum, &[rows, numbers, all], &[]);
    let sum = cx.reshape(sum, &[&named(&batch)[..], &[size], &named(&rest)].concat());
    // The table's dim stands for those that were picked, wherever they were.
    let place = |p: usize| if p < picked.start { p } else { p + 1 - picked.len() };
    let places: Vec<usize> =
        batch.iter().map(|&p| place(p)).chain([picked.start]).chain(rest.iter().map(|&p| place(p))).collect();
    let back: Vec<usize> = (0..places.len()).filter_map(|p| places.iter().position(|&at| at == p)).collect();
    let sum = cx.transpose(sum, &back);
    vec![cx.cast(sum, dtype)]
}

/// The dims of the numbers go in front, where UnsortedSegmentSum wants them, and the sum is kept in f32.
pub fn scatter_add(cx: &mut Cx<'_>, op: &ScatterAdd) -> Vec<Tensor> {
    if !op.batch.is_empty() {
        return scatter_add_batched(cx, op);
    }
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
