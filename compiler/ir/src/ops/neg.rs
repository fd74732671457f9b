//! `neg`: the negative of each element.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::elementwise::{arity, same_dtype};
use crate::op::{Class, Semantics, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Neg {}

impl Semantics for Neg {
    const NAME: &'static str = "neg";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 1, Self::NAME)?;
        same_dtype(args, Self::NAME)
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let g = cx.cotangent();
        smallvec![Some(cx.b.neg(g))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |x| -x[0])]
    }
}
