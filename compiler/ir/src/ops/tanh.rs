//! `tanh`: the hyperbolic tangent of each element.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::elementwise::{FUNCTION, QUOTIENT, unary_float};
use crate::op::{Class, Semantics, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tanh {}

impl Semantics for Tanh {
    const NAME: &'static str = "tanh";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        unary_float(args, Self::NAME)
    }

    fn vector_ops(&self, _: &[&TensorType], results: &[TensorType]) -> u64 {
        (2 * FUNCTION + QUOTIENT) * results[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        // g - g y^2
        let (y, g) = (cx.results[0], cx.cotangent());
        let square = cx.b.mul(y, y);
        let lost = cx.b.mul(g, square);
        smallvec![Some(cx.b.sub(g, lost))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |x| libm::tanh(x[0]))]
    }
}
