//! `min`: the smaller of two elements, broadcast by name; NaN if one of them is.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::compare::Comparison;
use super::elementwise::{arity, same_dtype};
use super::max::split;
use crate::op::{Class, Semantics, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Min {}

impl Semantics for Min {
    const NAME: &'static str = "min";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 2, Self::NAME)?;
        same_dtype(args, Self::NAME)
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        split(cx, [Comparison::Less, Comparison::Greater])
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |x| if x[0].is_nan() || x[0] < x[1] { x[0] } else { x[1] })]
    }
}
