//! `abs`: the size of each element without its sign.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::compare::Comparison;
use super::elementwise::unary_float;
use super::{Compare, Select};
use crate::op::{Class, Semantics, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Abs {}

impl Semantics for Abs {
    const NAME: &'static str = "abs";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        unary_float(args, Self::NAME)
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        // The sign of the operand; 0 at 0, as PyTorch has it.
        let (x, g) = (cx.args[0], cx.cotangent());
        let zero = cx.b.constant(0.0, cx.b.ty(x).dtype);
        let positive = cx.b.op(Compare { kind: Comparison::Greater }, &[x, zero]);
        let negative = cx.b.op(Compare { kind: Comparison::Less }, &[x, zero]);
        let minus = cx.b.neg(g);
        let rest = cx.b.op(Select {}, &[negative, minus, zero]);
        smallvec![Some(cx.b.op(Select {}, &[positive, g, rest]))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |x| x[0].abs())]
    }
}
