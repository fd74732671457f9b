//! `compare`: whether two elements stand in a relation, broadcast by name.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{DType, TensorType};

use super::elementwise::{arity, same_dtype};
use crate::op::{Class, Semantics, TextForm, Types, Vjp};
use crate::{Array, Builder, Mismatch, NodeId};

/// The largest number that f32 holds.
pub(super) const LARGEST: f64 = f32::MAX as f64;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Compare {
    pub kind: Comparison,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    Less,
    LessEqual,
    Equal,
    Greater,
    GreaterEqual,
    NotEqual,
}

impl Comparison {
    pub fn holds(self, a: f64, b: f64) -> bool {
        match self {
            Comparison::Less => a < b,
            Comparison::LessEqual => a <= b,
            Comparison::Equal => a == b,
            Comparison::Greater => a > b,
            Comparison::GreaterEqual => a >= b,
            Comparison::NotEqual => a != b,
        }
    }
}

impl Compare {
    /// Whether a number of 0 or more is finite in f32: NaN compares false.
    pub fn finite(b: &mut Builder, x: NodeId) -> NodeId {
        let largest = b.constant(LARGEST, b.ty(x).dtype);
        b.op(Self { kind: Comparison::LessEqual }, &[x, largest])
    }
}

impl Semantics for Compare {
    const NAME: &'static str = "compare";
    const CLASS: Class = Class::Elementwise;
    const TEXT: TextForm = TextForm { first: "kind", told: &[] };

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 2, Self::NAME)?;
        Ok(smallvec![same_dtype(args, Self::NAME)?[0].with_dtype(DType::Bool)])
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.none()
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |x| f64::from(u8::from(self.kind.holds(x[0], x[1]))))]
    }
}
