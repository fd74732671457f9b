//! `gelu_tanh`: x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), the tanh form of GELU (Hendrycks and Gimpel, 2016).

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::elementwise::{FUNCTION, QUOTIENT, unary_float, wide};
use super::{GeluTanhGrad, Sigmoid};
use crate::op::{Class, NodeIds, Semantics, Types, Vjp};
use crate::{Array, Builder, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GeluTanh {}

/// sqrt(2 / pi)
pub(super) const SCALE: f64 = FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
pub(super) const CUBIC: f64 = 0.044715;

impl GeluTanh {
    /// (1 + tanh(u)) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3), which is the logistic function of 2 u; and x^2.
    pub(super) fn gate(b: &mut Builder, x: NodeId) -> (NodeId, NodeId) {
        let square = b.mul(x, x);
        let bend = b.scale(square, 2.0 * SCALE * CUBIC);
        let bend = b.offset(bend, 2.0 * SCALE);
        let doubled = b.mul(x, bend);
        (b.op(Sigmoid {}, &[doubled]), square)
    }
}

impl Semantics for GeluTanh {
    const NAME: &'static str = "gelu_tanh";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        unary_float(args, Self::NAME)
    }

    fn flops(&self, _: &[&TensorType], results: &[TensorType]) -> u64 {
        8 * results[0].elements() as u64
    }

    fn vector_ops(&self, _: &[&TensorType], results: &[TensorType]) -> u64 {
        (2 * FUNCTION + QUOTIENT + 7) * results[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let g = cx.cotangent();
        smallvec![Some(cx.b.op(GeluTanhGrad {}, &[cx.args[0], g]))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |x| {
            let x = x[0];
            0.5 * x * (1.0 + libm::tanh(SCALE * (x + CUBIC * x * x * x)))
        })]
    }

    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let dtype = b.ty(args[0]).dtype;
        let x = b.cast(args[0], wide(dtype));
        let (gate, _) = Self::gate(b, x);
        let y = b.mul(x, gate);
        Some(smallvec![b.cast(y, dtype)])
    }
}
