//! `all_gather`: all ranks' values side by side along a new first dim.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{Dim, Name, TensorType};

use super::elementwise::{arity, distinct};
use crate::op::{Class, Collective, piece, Semantics, TextForm, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

/// The interpreter takes every rank's value to be its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AllGather {
    /// They span the group, major first.
    pub axes: Vec<Name>,
    /// The new dim, as long as the group.
    pub dim: Dim,
    /// Why it is there.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub why: Name,
}

impl Semantics for AllGather {
    const NAME: &'static str = "all_gather";
    const CLASS: Class = Class::Collective;
    const TEXT: TextForm = TextForm { first: "axes", told: &[] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        smallvec![&mut self.dim.name]
    }

    fn reason(&mut self) -> Option<&mut Name> {
        Some(&mut self.why)
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 1, Self::NAME)?;
        let mut ty = args[0].clone();
        ty.dims.insert(0, self.dim.clone());
        Ok(smallvec![distinct(ty)?])
    }

    fn flops(&self, _: &[&TensorType], _: &[TensorType]) -> u64 {
        0
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.refuse(Self::NAME)
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |x| x[0])]
    }

    fn describe_chunk(&self, count: usize) -> Self {
        Self { why: piece(&self.why, count), ..self.clone() }
    }

    fn collective(&self) -> Option<Collective> {
        Some(Collective::AllGather { axes: self.axes.clone(), why: self.why.clone() })
    }
}
