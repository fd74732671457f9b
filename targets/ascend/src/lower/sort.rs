//! The order of rows, by stable sorts.
//!
//! CANN's Sort promises nothing of NaN and of zeros of both signs: those become one zero, NaN becomes infinity, and a
//! second sort puts what was NaN behind the infinities.

use ir::ops::Argsort;

use super::cx::Cx;
use crate::dtype::DataType;
use crate::graph::Tensor;
use crate::infer::Value;
use crate::table::Op;

pub fn argsort(cx: &mut Cx<'_>, op: &Argsort) -> Vec<Tensor> {
    let (at, last) = (cx.of(0).position(&op.dim).unwrap_or(0), cx.of(0).rank() - 1);
    let x = cx.move_dim(cx.arg(0), at, last);
    let order = match cx.of(0).dtype.is_float() {
        true => of_floats(cx, x, op.descending, last as i64),
        false => sort(cx, x, op.descending),
    };
    let order = cx.cast(order, DataType::Int64);
    vec![cx.move_dim(order, last, at)]
}

/// Where the elements of each row stand in order.
fn sort(cx: &mut Cx<'_>, x: Tensor, descending: bool) -> Tensor {
    let attributes = [("axis", Value::Int(-1)), ("descending", Value::Bool(descending)), ("stable", Value::Bool(true))];
    cx.g.node(Op::Sort, &[Some(x)], &attributes, None)[1]
}

fn of_floats(cx: &mut Cx<'_>, x: Tensor, descending: bool, last: i64) -> Tensor {
    let mut x = cx.cast(x, DataType::Float);
    if descending {
        x = cx.g.op(Op::Neg, &[x], &[]);
    }
    let [zero, most] = [0.0, f64::INFINITY].map(|value| cx.scalar(value, DataType::Float));
    let is_nan = cx.g.op(Op::NotEqual, &[x, x], &[]);
    let x = cx.g.op(Op::SelectV2, &[is_nan, most, x], &[]);
    let x = cx.g.op(Op::Add, &[x, zero], &[]);
    let first = sort(cx, x, false);
    let flags = cx.cast(is_nan, DataType::Int32);
    let along = [("dim", Value::Int(last))];
    let moved = cx.g.op(Op::GatherElements, &[flags, first], &along);
    let second = sort(cx, moved, false);
    cx.g.op(Op::GatherElements, &[first, second], &along)
}
