//! `add`: the sum, broadcast by name.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::elementwise::{arity, same_dtype};
use crate::op::{Class, Semantics, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Add {}

impl Semantics for Add {
    const NAME: &'static str = "add";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 2, Self::NAME)?;
        same_dtype(args, Self::NAME)
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let g = cx.cotangent();
        smallvec![cx.wanted[0].then(|| cx.sum_to(g, 0)), cx.wanted[1].then(|| cx.sum_to(g, 1))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |x| x[0] + x[1])]
    }
}
