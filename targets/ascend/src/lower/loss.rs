//! Cross entropy and its gradient, from the log of the softmax.
//!
//! CANN has CrossEntropyLoss, but not in every release's headers; these nodes are in all of them.

use ir::ops::{CrossEntropy, CrossEntropyGrad};
use types::Name;

use super::cx::Cx;
use crate::dtype::DataType;
use crate::graph::Tensor;
use crate::infer::Value;
use crate::table::Op;

/// Log-probabilities with the classes last, whether each label is to be ignored, and where the classes were.
fn logarithms(cx: &mut Cx<'_>, dim: &Name, ignore: i64) -> (Tensor, Tensor, usize) {
    let at = cx.of(0).position(dim).unwrap_or(0);
    let last = cx.of(0).rank() - 1;
    let logits = cx.move_dim(cx.arg(0), at, last);
    let logits = cx.cast(logits, DataType::Float);
    let logs = cx.g.op(Op::LogSoftmaxV2, &[logits], &[("axes", Value::Ints(vec![-1]))]);
    let none = cx.scalar(ignore as f64, cx.dtype(cx.arg(1)));
    let ignored = cx.g.op(Op::Equal, &[cx.arg(1), none], &[]);
    (logs, ignored, at)
}

fn with_last(cx: &mut Cx<'_>, x: Tensor) -> Tensor {
    let shape = [&cx.g.shape(x)[..], &[1]].concat();
    cx.reshape(x, &shape)
}

pub fn cross_entropy(cx: &mut Cx<'_>, op: &CrossEntropy) -> Vec<Tensor> {
    let (logs, ignored, _) = logarithms(cx, &op.dim, op.ignore);
    let labels = cx.arg(1);
    let rows = cx.g.shape(labels);
    let first = cx.scalar(0.0, cx.dtype(labels));
    let safe = cx.g.op(Op::SelectV2, &[ignored, first, labels], &[]);
    let safe = with_last(cx, safe);
    let picked = cx.g.op(Op::GatherElements, &[logs, safe], &[("dim", Value::Int(rows.len() as i64))]);
    let picked = cx.reshape(picked, &rows);
    let loss = cx.g.op(Op::Neg, &[picked], &[]);
    let zero = cx.scalar(0.0, DataType::Float);
    vec![cx.g.op(Op::SelectV2, &[ignored, zero, loss], &[])]
}

pub fn cross_entropy_grad(cx: &mut Cx<'_>, op: &CrossEntropyGrad) -> Vec<Tensor> {
    let dtype = cx.dtype(cx.arg(0));
    let (logs, ignored, at) = logarithms(cx, &op.dim, op.ignore);
    let classes = cx.of(0).size_of(&op.dim).unwrap_or(1) as i64;
    let depth = cx.g.int(classes);
    let [one, zero] = [1.0, 0.0].map(|v| cx.scalar(v, DataType::Float));
    let hot = cx.g.op(Op::OneHot, &[cx.arg(1), depth, one, zero], &[]);
    let softmax = cx.g.op(Op::Exp, &[logs], &[]);
    let d = cx.g.op(Op::Sub, &[softmax, hot], &[]);
    let (g, ignored) = (with_last(cx, cx.arg(2)), with_last(cx, ignored));
    let d = cx.g.op(Op::Mul, &[d, g], &[]);
    let d = cx.g.op(Op::SelectV2, &[ignored, zero, d], &[]);
    let d = cx.cast(d, dtype);
    let last = cx.of(0).rank() - 1;
    vec![cx.move_dim(d, last, at)]
}
