//! `all_to_all`: the i-th piece along the first dim goes to the i-th rank; what came stands in the order of the ranks.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{Name, TensorType};

use super::elementwise::arity;
use crate::op::{Class, Collective, Semantics, TextForm, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

/// The interpreter takes every rank's value to be its own, and is the first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AllToAll {
    /// They span the group, major first.
    pub axes: Vec<Name>,
    /// Why it is there.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub why: Name,
}

impl Semantics for AllToAll {
    const NAME: &'static str = "all_to_all";
    const CLASS: Class = Class::Collective;
    const TEXT: TextForm = TextForm { first: "axes", told: &[] };

    fn reason(&mut self) -> Option<&mut Name> {
        Some(&mut self.why)
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 1, Self::NAME)?;
        if args[0].rank() == 0 {
            return Err(Mismatch::new(format!("`{}` has no first dim, one piece for each rank", args[0])).of([0]));
        }
        Ok(smallvec![args[0].clone()])
    }

    fn flops(&self, _: &[&TensorType], _: &[TensorType]) -> u64 {
        0
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.refuse(Self::NAME)
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let piece = results[0].elements() / results[0].dims[0].size.max(1);
        let ranks = results[0].dims[0].size;
        smallvec![Array::new(results[0].clone(), args[0].data[..piece].repeat(ranks))]
    }

    fn collective(&self) -> Option<Collective> {
        Some(Collective::AllToAll { axes: self.axes.clone(), why: self.why.clone() })
    }
}
