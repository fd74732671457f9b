//! Operators on one element of each operand. CANN broadcasts from the last dim; here dims have names.

use ir::ops::{Cast, Compare, Comparison};

use super::cx::Cx;
use crate::dtype::DataType;
use crate::graph::Tensor;
use crate::table::Op;

/// One operand, and a result like it.
pub fn map(cx: &mut Cx<'_>, op: Op) -> Vec<Tensor> {
    vec![cx.through(op, &[cx.arg(0)], 1, &[])]
}

/// Two operands, or a condition and two.
pub fn combine(cx: &mut Cx<'_>, op: Op) -> Vec<Tensor> {
    let to = cx.result(0);
    let args: Vec<Tensor> = (0..cx.count()).map(|i| cx.align(cx.arg(i), cx.of(i), to)).collect();
    vec![cx.through(op, &args, 2, &[])]
}

/// A quotient, or what it leaves; of whole numbers 0 where the divisor is.
pub fn divide(cx: &mut Cx<'_>, op: Op) -> Vec<Tensor> {
    let (to, dtype) = (cx.result(0), cx.dtype(cx.arg(1)));
    if to.dtype.is_float() {
        return combine(cx, op);
    }
    let [x, y] = [0, 1].map(|i| cx.align(cx.arg(i), cx.of(i), to));
    let [zero, one] = [0.0, 1.0].map(|value| cx.scalar(value, dtype));
    let by_zero = cx.g.op(Op::Equal, &[y, zero], &[]);
    let safe = cx.g.op(Op::SelectV2, &[by_zero, one, y], &[]);
    let quotient = cx.g.op(op, &[x, safe], &[]);
    vec![cx.g.op(Op::SelectV2, &[by_zero, zero, quotient], &[])]
}

pub fn compare(cx: &mut Cx<'_>, op: &Compare) -> Vec<Tensor> {
    combine(
        cx,
        match op.kind {
            Comparison::Less => Op::Less,
            Comparison::LessEqual => Op::LessEqual,
            Comparison::Equal => Op::Equal,
            Comparison::Greater => Op::Greater,
            Comparison::GreaterEqual => Op::GreaterEqual,
            Comparison::NotEqual => Op::NotEqual,
        },
    )
}

pub fn cast(cx: &mut Cx<'_>, op: &Cast) -> Vec<Tensor> {
    vec![cx.cast(cx.arg(0), DataType::of(op.to).unwrap_or(DataType::Undefined))]
}
