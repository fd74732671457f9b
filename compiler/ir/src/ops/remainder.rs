//! `remainder`: what `floor_div` leaves of a whole number, with the divisor's sign, broadcast by name; 0 where that is 0.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::elementwise::QUOTIENT;
use super::floor_div::{integers, whole};
use crate::op::{Class, Semantics, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Remainder {}

impl Semantics for Remainder {
    const NAME: &'static str = "remainder";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        whole(args, Self::NAME)
    }

    /// Units for vectors divide no whole numbers.
    fn vector_ops(&self, _: &[&TensorType], results: &[TensorType]) -> u64 {
        4 * QUOTIENT * results[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.none()
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![integers(args, &results[0], |a, b| {
            let r = a.wrapping_rem(b);
            if r != 0 && (r < 0) != (b < 0) { r + b } else { r }
        })]
    }
}
