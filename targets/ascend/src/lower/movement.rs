//! Operators that move elements.

use ir::ops::{Concat, Gather, Pad, Slice, Transpose, Window};

use super::cx::{Cx, sizes};
use crate::dtype::DataType;
use crate::graph::Tensor;
use crate::infer::Value;
use crate::table::Op;

pub fn reshape(cx: &mut Cx<'_>) -> Vec<Tensor> {
    let to = sizes(cx.result(0));
    vec![cx.reshape(cx.arg(0), &to)]
}

pub fn transpose(cx: &mut Cx<'_>, op: &Transpose) -> Vec<Tensor> {
    let order: Vec<usize> = op.order.iter().filter_map(|name| cx.of(0).position(name)).collect();
    vec![cx.transpose(cx.arg(0), &order)]
}

pub fn broadcast(cx: &mut Cx<'_>) -> Vec<Tensor> {
    let x = cx.align(cx.arg(0), cx.of(0), cx.result(0));
    let to = sizes(cx.result(0));
    vec![cx.broadcast(x, &to)]
}

pub fn slice(cx: &mut Cx<'_>, op: &Slice) -> Vec<Tensor> {
    let to = sizes(cx.result(0));
    let mut offsets = vec![0; to.len()];
    if let Some(p) = cx.of(0).position(&op.dim) {
        offsets[p] = op.start as i64;
    }
    vec![cx.slice(cx.arg(0), &offsets, &to)]
}

pub fn concat(cx: &mut Cx<'_>, op: &Concat) -> Vec<Tensor> {
    let parts: Vec<Tensor> = (0..cx.count()).map(|i| cx.arg(i)).collect();
    let dim = cx.of(0).position(&op.dim).unwrap_or(0);
    vec![cx.concat(&parts, dim)]
}

pub fn pad(cx: &mut Cx<'_>, op: &Pad) -> Vec<Tensor> {
    let x = cx.arg(0);
    let mut pads = vec![0; 2 * cx.of(0).rank()];
    if let Some(p) = cx.of(0).position(&op.dim) {
        (pads[2 * p], pads[2 * p + 1]) = (op.before as i64, op.after as i64);
    }
    let pads = cx.g.ints(&pads);
    let own = cx.dtype(x);
    // A bool is padded as a byte.
    let stored = if own == DataType::Bool { DataType::Uint8 } else { own };
    let (x, value) = (cx.cast(x, stored), cx.scalar(op.value, stored));
    let y = cx.g.op(Op::PadV3, &[x, pads, value], &[]);
    vec![cx.cast(y, own)]
}

pub fn gather(cx: &mut Cx<'_>, op: &Gather) -> Vec<Tensor> {
    let (table, ids) = (cx.of(0), cx.of(1));
    let dim = table.position(&op.dim).unwrap_or(0);
    let picked = op.picked(table, ids);
    if picked.len() == ids.rank() {
        return vec![pick(cx, cx.arg(0), cx.arg(1), dim, 0)];
    }
    // Batch dims go in front, where GatherV2 wants them.
    let is_batch = |p: &usize| *p != dim && ids.position(&table.dims[*p].name).is_some();
    let batch: Vec<usize> = (0..table.rank()).filter(is_batch).collect();
    let rest = (0..table.rank()).filter(|p| *p != dim && !is_batch(p));
    let order: Vec<usize> = batch.iter().copied().chain([dim]).chain(rest.clone()).collect();
    let name = |p: usize| &table.dims[p].name;
    let first = batch.iter().map(|&p| name(p)).chain(picked.iter().map(|d| &d.name));
    let of_ids: Vec<usize> = first.clone().filter_map(|n| ids.position(n)).collect();
    let x = cx.transpose(cx.arg(0), &order);
    let numbers = cx.transpose(cx.arg(1), &of_ids);
    let y = pick(cx, x, numbers, batch.len(), batch.len() as i64);
    let made: Vec<_> = first.chain(rest.map(name)).collect();
    let back: Vec<usize> = cx.result(0).dims.iter().filter_map(|d| made.iter().position(|n| **n == d.name)).collect();
    vec![cx.transpose(y, &back)]
}

/// Rows along `dim`, of which `batch` dims in front belong to both.
fn pick(cx: &mut Cx<'_>, x: Tensor, ids: Tensor, dim: usize, batch: i64) -> Tensor {
    let axis = cx.g.int(dim as i64);
    let attributes: &[_] = if batch == 0 { &[] } else { &[("batch_dims", Value::Int(batch))] };
    cx.through(Op::GatherV2, &[x, ids, axis], 1, attributes)
}

/// Where it begins is known at run time alone, so elements are picked by number: their count stays fixed for GE.
pub fn window(cx: &mut Cx<'_>, op: &Window) -> Vec<Tensor> {
    let (x, start) = (cx.arg(0), cx.arg(1));
    let dim = cx.of(0).position(&op.dim).unwrap_or(0);
    let there = cx.of(0).dims.get(dim).map_or(1, |d| d.size) as i64;
    let numbers = cx.count_up(op.size as i64);
    let at = cx.g.op(Op::Add, &[numbers, start], &[]);
    let last = cx.g.int(there - 1);
    let safe = cx.g.op(Op::Minimum, &[at, last], &[]);
    let picked = pick(cx, x, safe, dim, 0);
    let inside = cx.g.op(Op::LessEqual, &[at, last], &[]);
    let mut shape = vec![1; cx.of(0).rank() - dim];
    shape[0] = op.size as i64;
    let inside = cx.reshape(inside, &shape);
    let zero = cx.scalar(0.0, cx.dtype(x));
    vec![cx.through(Op::SelectV2, &[inside, picked, zero], 2, &[])]
}
