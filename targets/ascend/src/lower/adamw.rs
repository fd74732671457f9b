//! AdamW as ApplyAdamW.
//!
//! It takes the powers of the betas before this step, and multiplies once more itself (hicann/ops-nn,
//! optim/apply_adam_w/docs): ours come as c = 1 - beta^t, so a power is (1 - c) / beta.
//!
//! It writes over what it reads, so that a step which is to change nothing cannot be undone after it. Such a step has a
//! gradient and a rate of 0 and betas of 1, under which its formula gives what was there.

use ir::ops::Adamw;

use super::cx::Cx;
use crate::dtype::DataType;
use crate::graph::Tensor;
use crate::table::Op;

pub fn adamw(cx: &mut Cx<'_>, op: &Adamw) -> Vec<Tensor> {
    let [p, m, v, mut g] = [0, 1, 2, 3].map(|i| cx.arg(i));
    let [mut lr, c1, c2] = [4, 5, 6].map(|i| cx.reshape(cx.arg(i), &[1]));
    let mut single = |value: f64| cx.single(value, DataType::Float);
    let [one, beta1, beta2, decay, eps] = [1.0, op.beta1, op.beta2, op.weight_decay, op.eps].map(&mut single);
    let mut powers = [(c1, beta1), (c2, beta2)].map(|(c, beta)| {
        let power = cx.g.op(Op::Sub, &[one, c], &[]);
        cx.g.op(Op::RealDiv, &[power, beta], &[])
    });
    let mut betas = [beta1, beta2];
    if cx.count() > 7 {
        let largest = cx.scalar(f64::from(f32::MAX), DataType::Float);
        let zero = cx.scalar(0.0, DataType::Float);
        let finite = cx.g.op(Op::LessEqual, &[cx.arg(7), largest], &[]);
        let mut or = |value: Tensor, other: Tensor| cx.g.op(Op::SelectV2, &[finite, value, other], &[]);
        (g, lr) = (or(g, zero), or(lr, zero));
        (powers, betas) = (powers.map(|power| or(power, zero)), betas.map(|beta| or(beta, one)));
    }
    let ([power1, power2], [beta1, beta2]) = (powers, betas);
    cx.g.several(Op::ApplyAdamW, &[p, m, v, power1, power2, lr, decay, beta1, beta2, eps, g], &[])
}
