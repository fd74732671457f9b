//! `rsqrt`: one over the square root of each element.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::elementwise::{QUOTIENT, unary_float};
use crate::op::{Class, Semantics, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rsqrt {}

impl Semantics for Rsqrt {
    const NAME: &'static str = "rsqrt";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        unary_float(args, Self::NAME)
    }

    fn vector_ops(&self, _: &[&TensorType], results: &[TensorType]) -> u64 {
        2 * QUOTIENT * results[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let g = cx.cotangent();
        // d x^(-1/2) = -1/2 x^(-3/2)
        let y = cx.results[0];
        let d = cx.b.div(y, cx.args[0]);
        let d = cx.b.scale(d, -0.5);
        smallvec![Some(cx.b.mul(g, d))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |x| 1.0 / x[0].sqrt())]
    }
}
