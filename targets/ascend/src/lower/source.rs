//! Constants, tables and counted numbers.

use ir::ops::{Constant, Iota, Table};

use super::cx::{Cx, sizes};
use crate::dtype::DataType;
use crate::graph::Tensor;

pub fn constant(cx: &mut Cx<'_>, op: &Constant) -> Vec<Tensor> {
    let dtype = DataType::of(op.dtype).unwrap_or(DataType::Undefined);
    vec![cx.scalar(op.value, dtype)]
}

pub fn table(cx: &mut Cx<'_>, op: &Table) -> Vec<Tensor> {
    let dtype = DataType::of(op.dtype).unwrap_or(DataType::Undefined);
    let shape = sizes(cx.result(0));
    vec![cx.numbers(&op.data, &shape, dtype)]
}

/// Counted in i64, so that the length is a constant that GE's shape rules see.
pub fn iota(cx: &mut Cx<'_>, op: &Iota) -> Vec<Tensor> {
    let numbers = cx.count_up(op.dim.size as i64);
    vec![cx.cast(numbers, DataType::of(op.dtype).unwrap_or(DataType::Undefined))]
}
