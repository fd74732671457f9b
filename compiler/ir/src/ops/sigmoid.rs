//! `sigmoid`: 1 / (1 + e^-x) of each element.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::elementwise::{FUNCTION, QUOTIENT, unary_float};
use crate::op::{Class, Semantics, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sigmoid {}

impl Semantics for Sigmoid {
    const NAME: &'static str = "sigmoid";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        unary_float(args, Self::NAME)
    }

    fn vector_ops(&self, _: &[&TensorType], results: &[TensorType]) -> u64 {
        (FUNCTION + QUOTIENT + 2) * results[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        // g y - g y^2
        let (y, g) = (cx.results[0], cx.cotangent());
        let first = cx.b.mul(g, y);
        let lost = cx.b.mul(first, y);
        smallvec![Some(cx.b.sub(first, lost))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |x| 1.0 / (1.0 + libm::exp(-x[0])))]
    }
}
