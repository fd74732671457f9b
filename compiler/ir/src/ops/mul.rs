//! `mul`: the product, broadcast by name.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::elementwise::{arity, same_dtype};
use crate::op::{Class, Semantics, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mul {}

impl Semantics for Mul {
    const NAME: &'static str = "mul";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 2, Self::NAME)?;
        same_dtype(args, Self::NAME)
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let (a, b, g) = (cx.args[0], cx.args[1], cx.cotangent());
        let mut by = |other: NodeId, arg: usize| {
            cx.wanted[arg].then(|| {
                let d = cx.b.mul(g, other);
                cx.sum_to(d, arg)
            })
        };
        smallvec![by(b, 0), by(a, 1)]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |x| x[0] * x[1])]
    }
}
