//! `softmax`: e^x / sum(e^x) over one dim, computed from x - max(x).

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{Name, TensorType};

use super::elementwise::{FUNCTION, QUOTIENT, wide};
use super::{Exp, ReduceMax, SoftmaxGrad, row};
use crate::op::{Class, NodeIds, Semantics, TextForm, Types, Vjp};
use crate::{Array, Builder, Factors, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Softmax {
    pub dim: Name,
}

impl Softmax {
    /// e^(x - max(x)), its sum over the dim, and max(x) as nodes; cross entropy's expansions start with them too.
    pub(super) fn parts(b: &mut Builder, x: NodeId, dim: &Name) -> (NodeId, NodeId, NodeId) {
        let dims = std::slice::from_ref(dim);
        let max = b.op(ReduceMax { dims: dims.to_vec() }, &[x]);
        let shifted = b.sub(x, max);
        let e = b.op(Exp {}, &[shifted]);
        (e, b.reduce_sum(e, dims), max)
    }
}

impl Semantics for Softmax {
    const NAME: &'static str = "softmax";
    const CLASS: Class = Class::Composite;
    const TEXT: TextForm = TextForm { first: "dim", told: &[] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        smallvec![&mut self.dim]
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        row::infer(args, 1, &self.dim, Self::NAME)
    }

    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        row::factors(args, results, &self.dim)
    }

    fn flops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        5 * args[0].elements() as u64
    }

    fn vector_ops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        (FUNCTION + QUOTIENT + 3) * args[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let g = cx.cotangent();
        smallvec![Some(cx.b.op(SoftmaxGrad { dim: self.dim.clone() }, &[cx.results[0], g]))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let x = args[0];
        let rows = x.ty.without(std::slice::from_ref(&self.dim));
        let max = x.fold(&rows, f64::NEG_INFINITY, f64::max);
        let e = Array::zip(&x.ty, &[x, &max], |v| libm::exp(v[0] - v[1]));
        let sum = e.fold(&rows, 0.0, |a, b| a + b);
        smallvec![Array::zip(&results[0], &[&e, &sum], |v| v[0] / v[1])]
    }

    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let dtype = b.ty(args[0]).dtype;
        let x = b.cast(args[0], wide(dtype));
        let (e, sum, _) = Self::parts(b, x, &self.dim);
        let y = b.div(e, sum);
        Some(smallvec![b.cast(y, dtype)])
    }
}
