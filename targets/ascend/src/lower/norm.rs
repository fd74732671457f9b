//! Normalisations and softmax over one dim, as CANN's own kernels, which want that dim last.
//!
//! Ours have no weights: gammas are ones, betas are not fed. Gradients ask for the forward's statistics, which are
//! computed again.

use ir::ops::{LayerNorm, LayerNormGrad, RmsNorm, RmsNormGrad, Softmax, SoftmaxGrad};
use types::Name;

use super::cx::Cx;
use crate::graph::Tensor;
use crate::infer::Value;
use crate::table::Op;

/// Where `dim` is, the last place, and ones for a weight.
fn places(cx: &mut Cx<'_>, dim: &Name) -> (usize, usize, Tensor) {
    let ty = cx.of(0);
    let (at, last) = (ty.position(dim).unwrap_or(0), ty.rank().saturating_sub(1));
    let size = ty.size_of(dim).unwrap_or(1) as i64;
    (at, last, cx.fill(1.0, &[size], cx.dtype(cx.arg(0))))
}

fn epsilon(eps: f64) -> [(&'static str, Value); 1] {
    [("epsilon", Value::Float(eps as f32))]
}

pub fn rms_norm(cx: &mut Cx<'_>, op: &RmsNorm) -> Vec<Tensor> {
    let (at, last, ones) = places(cx, &op.dim);
    let x = cx.move_dim(cx.arg(0), at, last);
    let y = cx.g.op(Op::RmsNorm, &[x, ones], &epsilon(op.eps));
    vec![cx.move_dim(y, last, at)]
}

pub fn rms_norm_grad(cx: &mut Cx<'_>, op: &RmsNormGrad) -> Vec<Tensor> {
    let (at, last, ones) = places(cx, &op.dim);
    let [x, g] = [0, 1].map(|i| cx.move_dim(cx.arg(i), at, last));
    let rstd = cx.g.several(Op::RmsNorm, &[x, ones], &epsilon(op.eps))[1];
    let dx = cx.g.op(Op::RmsNormGrad, &[g, x, rstd, ones], &[]);
    vec![cx.move_dim(dx, last, at)]
}

fn layer_norm_of(cx: &mut Cx<'_>, x: Tensor, eps: f64) -> Vec<Tensor> {
    let own = cx.g.shape(x).last().copied().unwrap_or(1);
    let Ok(own) = i32::try_from(own) else {
        cx.g.fail(format!("LayerNormV4 takes rows of fewer than 2^31 elements, not {own}"));
        return vec![x; 3];
    };
    let own = cx.g.ints32(&[own]);
    cx.g.several(Op::LayerNormV4, &[x, own], &epsilon(eps))
}

pub fn layer_norm(cx: &mut Cx<'_>, op: &LayerNorm) -> Vec<Tensor> {
    let (at, last) = (cx.of(0).position(&op.dim).unwrap_or(0), cx.of(0).rank().saturating_sub(1));
    let x = cx.move_dim(cx.arg(0), at, last);
    let y = layer_norm_of(cx, x, op.eps)[0];
    vec![cx.move_dim(y, last, at)]
}

pub fn layer_norm_grad(cx: &mut Cx<'_>, op: &LayerNormGrad) -> Vec<Tensor> {
    let (at, last, ones) = places(cx, &op.dim);
    let [x, g] = [0, 1].map(|i| cx.move_dim(cx.arg(i), at, last));
    let forward = layer_norm_of(cx, x, op.eps);
    let (mean, rstd) = (forward[1], forward[2]);
    let dx = cx.g.op(Op::LayerNormGradV3, &[g, x, rstd, mean, ones], &[]);
    vec![cx.move_dim(dx, last, at)]
}

fn axes(cx: &Cx<'_>, dim: &Name) -> [(&'static str, Value); 1] {
    [("axes", Value::Ints(vec![cx.of(0).position(dim).unwrap_or(0) as i64]))]
}

pub fn softmax(cx: &mut Cx<'_>, op: &Softmax) -> Vec<Tensor> {
    let axes = axes(cx, &op.dim);
    vec![cx.g.op(Op::SoftmaxV2, &[cx.arg(0)], &axes)]
}

pub fn softmax_grad(cx: &mut Cx<'_>, op: &SoftmaxGrad) -> Vec<Tensor> {
    let axes = axes(cx, &op.dim);
    vec![cx.g.op(Op::SoftmaxGrad, &[cx.arg(0), cx.arg(1)], &axes)]
}
