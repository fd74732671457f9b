//! `gelu_tanh_grad`: the gradient of `gelu_tanh` by its operand, from the operand and the cotangent.
//!
//! With t = tanh(s (x + c x^3)): dx = g / 2 (1 + t + x (1 - t^2) s (1 + 3 c x^2)).

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::GeluTanh;
use super::elementwise::{FUNCTION, QUOTIENT, alike_float, wide};
use super::gelu_tanh::{CUBIC, SCALE};
use crate::op::{Class, NodeIds, Semantics, Types, Vjp};
use crate::{Array, Builder, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GeluTanhGrad {}

impl Semantics for GeluTanhGrad {
    const NAME: &'static str = "gelu_tanh_grad";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        alike_float(args, 2, Self::NAME)
    }

    fn flops(&self, _: &[&TensorType], results: &[TensorType]) -> u64 {
        16 * results[0].elements() as u64
    }

    fn vector_ops(&self, _: &[&TensorType], results: &[TensorType]) -> u64 {
        (2 * FUNCTION + QUOTIENT + 15) * results[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.refuse(Self::NAME)
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |v| {
            let (x, g) = (v[0], v[1]);
            let t = libm::tanh(SCALE * (x + CUBIC * x * x * x));
            0.5 * g * (1.0 + t + x * (1.0 - t * t) * SCALE * (1.0 + 3.0 * CUBIC * x * x))
        })]
    }

    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let dtype = b.ty(args[0]).dtype;
        let x = b.cast(args[0], wide(dtype));
        let g = b.cast(args[1], wide(dtype));
        // With p = (1 + t) / 2: dx = g (p + x p (1 - p) 2 s (1 + 3 c x^2)).
        let (p, x2) = GeluTanh::gate(b, x);
        let slope = b.scale(x2, 6.0 * CUBIC * SCALE);
        let slope = b.offset(slope, 2.0 * SCALE);
        let rest = b.neg(p);
        let rest = b.offset(rest, 1.0);
        let rise = b.mul(p, rest);
        let rise = b.mul(rise, slope);
        let rise = b.mul(x, rise);
        let sum = b.add(p, rise);
        let dx = b.mul(g, sum);
        Some(smallvec![b.cast(dx, dtype)])
    }
}
