//! `cos`: the cosine of each element.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::elementwise::{FUNCTION, unary_float};
use super::Sin;
use crate::op::{Class, Semantics, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cos {}

impl Semantics for Cos {
    const NAME: &'static str = "cos";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        unary_float(args, Self::NAME)
    }

    fn vector_ops(&self, _: &[&TensorType], results: &[TensorType]) -> u64 {
        FUNCTION * results[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let g = cx.cotangent();
        let sin = cx.b.op(Sin {}, &[cx.args[0]]);
        let d = cx.b.mul(g, sin);
        smallvec![Some(cx.b.neg(d))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |x| libm::cos(x[0]))]
    }
}
