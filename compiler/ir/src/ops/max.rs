//! `max`: the larger of two elements, broadcast by name; NaN if one of them is.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::compare::Comparison;
use super::elementwise::{arity, same_dtype};
use super::{Compare, Select};
use crate::op::{Class, Semantics, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Max {}

/// The gradient goes to the operand that wins; each gets half at ties, as in PyTorch.
pub(super) fn split(cx: &mut Vjp<'_>, wins: [Comparison; 2]) -> SmallVec<[Option<NodeId>; 4]> {
    let (args, g) = (cx.args, cx.cotangent());
    let half = cx.b.scale(g, 0.5);
    let zero = cx.b.constant(0.0, cx.b.ty(g).dtype);
    let tie = cx.b.op(Compare { kind: Comparison::Equal }, &[args[0], args[1]]);
    let rest = cx.b.op(Select {}, &[tie, half, zero]);
    let mut of = |own: usize| {
        cx.wanted[own].then(|| {
            // In the order of the operands, which is the order of the result's dims.
            let won = cx.b.op(Compare { kind: wins[own] }, &[args[0], args[1]]);
            let d = cx.b.op(Select {}, &[won, g, rest]);
            cx.sum_to(d, own)
        })
    };
    smallvec![of(0), of(1)]
}

impl Semantics for Max {
    const NAME: &'static str = "max";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 2, Self::NAME)?;
        same_dtype(args, Self::NAME)
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        split(cx, [Comparison::Greater, Comparison::Less])
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |x| if x[0].is_nan() || x[0] > x[1] { x[0] } else { x[1] })]
    }
}
