//! AdamW as ApplyAdamW.
//!
//! It takes the powers of the betas before this step, and multiplies once more itself (hicann/ops-nn,
//! optim/apply_adam_w/docs): ours come as c = 1 - beta^t, so a power is (1 - c) / beta.

use ir::ops::Adamw;

use super::cx::Cx;
use crate::dtype::DataType;
use crate::graph::Tensor;
use crate::table::Op;

pub fn adamw(cx: &mut Cx<'_>, op: &Adamw) -> Vec<Tensor> {
    let [p, m, v, g] = [0, 1, 2, 3].map(|i| cx.arg(i));
    let [lr, c1, c2] = [4, 5, 6].map(|i| cx.reshape(cx.arg(i), &[1]));
    let mut single = |value: f64| cx.single(value, DataType::Float);
    let [one, beta1, beta2, decay, eps] = [1.0, op.beta1, op.beta2, op.weight_decay, op.eps].map(&mut single);
    let [power1, power2] = [(c1, beta1), (c2, beta2)].map(|(c, beta)| {
        let power = cx.g.op(Op::Sub, &[one, c], &[]);
        cx.g.op(Op::RealDiv, &[power, beta], &[])
    });
    cx.g.several(Op::ApplyAdamW, &[p, m, v, power1, power2, lr, decay, beta1, beta2, eps, g], &[])
}
