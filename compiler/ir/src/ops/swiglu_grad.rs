//! `swiglu_grad`: the gradients of `swiglu` by gate and up, from both and the cotangent.
//!
//! With s = sigmoid(gate): dgate = g up s (1 + gate (1 - s)), dup = g gate s.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::elementwise::{FUNCTION, QUOTIENT, alike_float, wide};
use super::{Sigmoid, SiluGrad};
use crate::op::{Class, NodeIds, Semantics, Types, Vjp};
use crate::{Array, Builder, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SwigluGrad {}

impl Semantics for SwigluGrad {
    const NAME: &'static str = "swiglu_grad";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        let ty = alike_float(args, 3, Self::NAME)?.remove(0);
        Ok(smallvec![ty.clone(), ty])
    }

    fn flops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        11 * args[0].elements() as u64
    }

    fn vector_ops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        (FUNCTION + QUOTIENT + 10) * args[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.refuse(Self::NAME)
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let gate = Array::zip(&results[0], args, |v| {
            let s = 1.0 / (1.0 + libm::exp(-v[0]));
            v[2] * v[1] * s * (1.0 + v[0] * (1.0 - s))
        });
        let up = Array::zip(&results[1], args, |v| v[2] * v[0] / (1.0 + libm::exp(-v[0])));
        smallvec![gate, up]
    }

    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let dtype = b.ty(args[0]).dtype;
        let gate = b.cast(args[0], wide(dtype));
        let up = b.cast(args[1], wide(dtype));
        let g = b.cast(args[2], wide(dtype));
        let s = b.op(Sigmoid {}, &[gate]);
        let slope = SiluGrad::slope(b, gate, s);
        let silu = b.mul(gate, s);
        let dup = b.mul(g, silu);
        let dgate = b.mul(g, up);
        let dgate = b.mul(dgate, slope);
        Some(smallvec![b.cast(dgate, dtype), b.cast(dup, dtype)])
    }
}
