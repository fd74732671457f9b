//! `div`: the quotient, broadcast by name. Of whole numbers it is rounded toward 0, and 0 where the divisor is 0.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::elementwise::{QUOTIENT, arity, same_dtype};
use super::floor_div::integers;
use crate::op::{Class, Semantics, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Div {}

impl Semantics for Div {
    const NAME: &'static str = "div";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 2, Self::NAME)?;
        same_dtype(args, Self::NAME)
    }

    fn vector_ops(&self, _: &[&TensorType], results: &[TensorType]) -> u64 {
        QUOTIENT * results[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let (a, b, g) = (cx.args[0], cx.args[1], cx.cotangent());
        let first = cx.wanted[0].then(|| {
            let d = cx.b.div(g, b);
            cx.sum_to(d, 0)
        });
        // d(a/b)/db = -(a/b)/b
        let second = cx.wanted[1].then(|| {
            let q = cx.b.div(a, b);
            let q = cx.b.div(q, b);
            let d = cx.b.mul(g, q);
            let d = cx.sum_to(d, 1);
            cx.b.neg(d)
        });
        smallvec![first, second]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        if !results[0].dtype.is_float() {
            return smallvec![integers(args, &results[0], i64::wrapping_div)];
        }
        smallvec![Array::zip(&results[0], args, |x| x[0] / x[1])]
    }
}
