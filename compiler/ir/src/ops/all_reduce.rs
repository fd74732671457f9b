//! `all_reduce`: the sum or maximum of all ranks' values, on each of them.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{Name, TensorType};

use super::elementwise::arity;
use crate::op::{Class, Collective, piece, Semantics, TextForm, Types, Vjp};
use crate::{Array, Mismatch, NodeId, PartialKind};

/// The interpreter takes every rank's value to be its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AllReduce {
    /// They span the group, major first.
    pub axes: Vec<Name>,
    /// Maxima rather than sums.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub max: bool,
    /// Number of ranks in the group.
    pub ranks: usize,
    /// Why it is there.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub why: Name,
}

impl Semantics for AllReduce {
    const NAME: &'static str = "all_reduce";
    const CLASS: Class = Class::Collective;
    const TEXT: TextForm = TextForm { first: "axes", told: &[] };

    fn reason(&mut self) -> Option<&mut Name> {
        Some(&mut self.why)
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 1, Self::NAME)?;
        Ok(smallvec![args[0].clone()])
    }

    fn flops(&self, _: &[&TensorType], _: &[TensorType]) -> u64 {
        0
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.refuse(Self::NAME)
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let times = if self.max { 1.0 } else { self.ranks as f64 };
        smallvec![Array::zip(&results[0], args, |x| x[0] * times)]
    }

    fn describe_chunk(&self, count: usize) -> Self {
        Self { why: piece(&self.why, count), ..self.clone() }
    }

    fn collective(&self) -> Option<Collective> {
        let kind = if self.max { PartialKind::Max } else { PartialKind::Sum };
        Some(Collective::AllReduce { kind, axes: self.axes.clone(), why: self.why.clone() })
    }
}
