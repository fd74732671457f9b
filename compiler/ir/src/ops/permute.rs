//! `permute`: each rank's values go to the rank `shift` further on around the group; several travel together.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use types::{Name, TensorType};

use crate::op::{Class, Collective, Semantics, TextForm, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

/// The interpreter takes every rank's value to be its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Permute {
    /// They span the group, major first.
    pub axes: Vec<Name>,
    pub shift: i64,
    /// Why it is there.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub why: Name,
}

impl Semantics for Permute {
    const NAME: &'static str = "permute";
    const CLASS: Class = Class::Collective;
    const TEXT: TextForm = TextForm { first: "axes", told: &[] };

    fn reason(&mut self) -> Option<&mut Name> {
        Some(&mut self.why)
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        if args.is_empty() {
            return Err(Mismatch::new("`permute` of nothing"));
        }
        Ok(args.iter().map(|&a| a.clone()).collect())
    }

    fn flops(&self, _: &[&TensorType], _: &[TensorType]) -> u64 {
        0
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.refuse(Self::NAME)
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let _ = results;
        args.iter().map(|&a| a.clone()).collect()
    }

    fn collective(&self) -> Option<Collective> {
        Some(Collective::Permute { axes: self.axes.clone(), shift: self.shift, why: self.why.clone() })
    }
}
