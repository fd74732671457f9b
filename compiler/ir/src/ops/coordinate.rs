//! `coordinate`: where on a mesh axis this rank is, from 0.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{DType, Name, TensorType};

use super::elementwise::arity;
use crate::op::{Class, Collective, Semantics, TextForm, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

/// An i64. The interpreter stands at 0.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Coordinate {
    pub axis: Name,
}

impl Semantics for Coordinate {
    const NAME: &'static str = "coordinate";
    const CLASS: Class = Class::Collective;
    const TEXT: TextForm = TextForm { first: "axis", told: &[] };

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 0, Self::NAME)?;
        Ok(smallvec![TensorType::scalar(DType::I64)])
    }

    fn flops(&self, _: &[&TensorType], _: &[TensorType]) -> u64 {
        0
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.none()
    }

    fn eval(&self, _: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zeros(results[0].clone())]
    }

    fn collective(&self) -> Option<Collective> {
        Some(Collective::Coordinate(self.axis.clone()))
    }
}
