//! GELU, SiLU and the gated unit, each with its gradient, as CANN's own kernels: they round once, as ours do.

use super::cx::Cx;
use crate::graph::Tensor;
use crate::infer::Value;
use crate::table::Op;

pub fn gelu(cx: &mut Cx<'_>) -> Vec<Tensor> {
    vec![cx.g.op(Op::GeluV2, &[cx.arg(0)], &[("approximate", Value::Text("tanh".into()))])]
}

/// Operands: x and the cotangent, which CANN takes first.
pub fn gelu_grad(cx: &mut Cx<'_>) -> Vec<Tensor> {
    vec![cx.g.op(Op::GeluGradV2, &[cx.arg(1), cx.arg(0)], &[("approximate", Value::Text("tanh".into()))])]
}

pub fn silu(cx: &mut Cx<'_>) -> Vec<Tensor> {
    vec![cx.g.op(Op::Swish, &[cx.arg(0)], &[])]
}

/// CANN asks for the result too, which is computed again.
pub fn silu_grad(cx: &mut Cx<'_>) -> Vec<Tensor> {
    let (x, g) = (cx.arg(0), cx.arg(1));
    let y = cx.g.op(Op::Swish, &[x], &[]);
    vec![cx.g.op(Op::SwishGrad, &[g, x, y], &[])]
}

/// CANN's operand is gate and up side by side in the last dim.
fn joined(cx: &mut Cx<'_>) -> (Tensor, Vec<i64>) {
    let mut shape = cx.g.shape(cx.arg(0));
    let mut parts = [cx.arg(0), cx.arg(1)];
    if shape.is_empty() {
        shape.push(1);
        parts = parts.map(|p| cx.reshape(p, &shape));
    }
    (cx.concat(&parts, shape.len() - 1), shape)
}

pub fn swiglu(cx: &mut Cx<'_>) -> Vec<Tensor> {
    let own = cx.g.shape(cx.arg(0));
    let (x, _) = joined(cx);
    let y = cx.g.op(Op::SwiGlu, &[x], &[]);
    vec![cx.reshape(y, &own)]
}

pub fn swiglu_grad(cx: &mut Cx<'_>) -> Vec<Tensor> {
    let own = cx.g.shape(cx.arg(0));
    let (x, shape) = joined(cx);
    let g = cx.reshape(cx.arg(2), &shape);
    let both = cx.g.op(Op::SwiGluGrad, &[g, x], &[]);
    let mut offsets = vec![0; shape.len()];
    let mut half = |cx: &mut Cx<'_>, start: i64| {
        if let Some(last) = offsets.last_mut() {
            *last = start;
        }
        let half = cx.slice(both, &offsets, &shape);
        cx.reshape(half, &own)
    };
    let gate = half(cx, 0);
    vec![gate, half(cx, shape.last().copied().unwrap_or(1))]
}
