//! `gelu_tanh_grad`: the gradient of `gelu_tanh` by its operand, from the operand and the cotangent.
//!
//! With t = tanh(s (x + c x^3)): dx = g / 2 (1 + t + x (1 - t^2) s (1 + 3 c x^2)).

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::GeluTanh;
use super::elementwise::{alike_float, wide};
use super::gelu_tanh::{CUBIC, SCALE};
use crate::op::{Class, NodeIds, Semantics, Types, Vjp};
use crate::{Array, Builder, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
        let (t, x2) = GeluTanh::tanh(b, x);
        // s (1 + 3 c x^2)
        let slope = b.scale(x2, 3.0 * CUBIC * SCALE);
        let slope = b.offset(slope, SCALE);
        // 1 - t^2
        let t2 = b.mul(t, t);
        let fall = b.neg(t2);
        let fall = b.offset(fall, 1.0);
        let inner = b.mul(fall, slope);
        let inner = b.mul(x, inner);
        let outer = b.offset(t, 1.0);
        let sum = b.add(outer, inner);
        let half = b.scale(g, 0.5);
        let dx = b.mul(half, sum);
        Some(smallvec![b.cast(dx, dtype)])
    }
}
