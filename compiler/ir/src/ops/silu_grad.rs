//! `silu_grad`: the gradient of `silu` by its operand, from the operand and the cotangent.
//!
//! With s = sigmoid(x): dx = g s (1 + x (1 - s)).

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::Sigmoid;
use super::elementwise::{FUNCTION, QUOTIENT, alike_float, wide};
use crate::op::{Class, NodeIds, Semantics, Types, Vjp};
use crate::{Array, Builder, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SiluGrad {}

impl SiluGrad {
    /// s (1 + x (1 - s)) as nodes, given s = sigmoid(x).
    pub(super) fn slope(b: &mut Builder, x: NodeId, s: NodeId) -> NodeId {
        let rest = b.neg(s);
        let rest = b.offset(rest, 1.0);
        let bend = b.mul(x, rest);
        let bend = b.offset(bend, 1.0);
        b.mul(s, bend)
    }
}

impl Semantics for SiluGrad {
    const NAME: &'static str = "silu_grad";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        alike_float(args, 2, Self::NAME)
    }

    fn flops(&self, _: &[&TensorType], results: &[TensorType]) -> u64 {
        8 * results[0].elements() as u64
    }

    fn vector_ops(&self, _: &[&TensorType], results: &[TensorType]) -> u64 {
        (FUNCTION + QUOTIENT + 7) * results[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.refuse(Self::NAME)
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |v| {
            let (x, g) = (v[0], v[1]);
            let s = 1.0 / (1.0 + libm::exp(-x));
            g * s * (1.0 + x * (1.0 - s))
        })]
    }

    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let dtype = b.ty(args[0]).dtype;
        let x = b.cast(args[0], wide(dtype));
        let g = b.cast(args[1], wide(dtype));
        let s = b.op(Sigmoid {}, &[x]);
        let slope = Self::slope(b, x, s);
        let dx = b.mul(g, slope);
        Some(smallvec![b.cast(dx, dtype)])
    }
}
