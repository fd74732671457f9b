//! `expm1`: e to the power of each element, less one, exact near 0.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::elementwise::{FUNCTION, QUOTIENT, unary_float};
use crate::op::{Class, Semantics, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Expm1 {}

impl Semantics for Expm1 {
    const NAME: &'static str = "expm1";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        unary_float(args, Self::NAME)
    }

    fn vector_ops(&self, _: &[&TensorType], results: &[TensorType]) -> u64 {
        (2 * FUNCTION + QUOTIENT) * results[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let g = cx.cotangent();
        let d = cx.b.offset(cx.results[0], 1.0);
        smallvec![Some(cx.b.mul(g, d))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |x| libm::expm1(x[0]))]
    }
}
