//! `softmax_grad`: the gradient of `softmax` by its operand, from the result and the cotangent: dx = y (g - sum(g y)).

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{Name, TensorType};

use super::elementwise::wide;
use super::row;
use crate::op::{Class, NodeIds, Semantics, TextForm, Types, Vjp};
use crate::{Array, Builder, Factors, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SoftmaxGrad {
    pub dim: Name,
}

impl Semantics for SoftmaxGrad {
    const NAME: &'static str = "softmax_grad";
    const CLASS: Class = Class::Composite;
    const TEXT: TextForm = TextForm { first: "dim", told: &[] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        smallvec![&mut self.dim]
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        row::infer(args, 2, &self.dim, Self::NAME)
    }

    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        row::factors(args, results, &self.dim)
    }

    fn flops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        4 * args[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.refuse(Self::NAME)
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let (y, g) = (args[0], args[1]);
        let rows = y.ty.without(std::slice::from_ref(&self.dim));
        let sum = Array::zip(&y.ty, &[y, g], |v| v[0] * v[1]).fold(&rows, 0.0, |a, b| a + b);
        smallvec![Array::zip(&results[0], &[y, g, &sum], |v| v[0] * (v[1] - v[2]))]
    }

    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let dtype = b.ty(args[0]).dtype;
        let y = b.cast(args[0], wide(dtype));
        let g = b.cast(args[1], wide(dtype));
        let product = b.mul(y, g);
        let sum = b.reduce_sum(product, std::slice::from_ref(&self.dim));
        let d = b.sub(g, sum);
        let dx = b.mul(y, d);
        Some(smallvec![b.cast(dx, dtype)])
    }
}
