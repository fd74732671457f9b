//! `sub`: the difference, broadcast by name.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::elementwise::{arity, same_dtype};
use crate::op::{Class, Semantics, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sub {}

impl Semantics for Sub {
    const NAME: &'static str = "sub";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 2, Self::NAME)?;
        same_dtype(args, Self::NAME)
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let g = cx.cotangent();
        let first = cx.wanted[0].then(|| cx.sum_to(g, 0));
        let second = cx.wanted[1].then(|| {
            let sum = cx.sum_to(g, 1);
            cx.b.neg(sum)
        });
        smallvec![first, second]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |x| x[0] - x[1])]
    }
}
