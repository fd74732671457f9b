//! `reshard`: the same value, held by the ranks in another way. Which way is its node's sharding. The parts of a softmax
//! change together: the values and the logs of their weights.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use types::{Name, TensorType};

use crate::op::{Class, Semantics, TextForm, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

/// The only operator whose operands and results may differ in sharding.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reshard {
    /// Who needs it: `matmul needs L whole over tp`.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub why: Name,
}

impl Semantics for Reshard {
    const NAME: &'static str = "reshard";
    const CLASS: Class = Class::Collective;
    const TEXT: TextForm = TextForm { first: "why", told: &[] };

    fn reason(&mut self) -> Option<&mut Name> {
        Some(&mut self.why)
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        if args.is_empty() {
            return Err(Mismatch::new("`reshard` of nothing"));
        }
        Ok(args.iter().map(|&a| a.clone()).collect())
    }

    fn flops(&self, _: &[&TensorType], _: &[TensorType]) -> u64 {
        0
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.cotangents.iter().copied().collect()
    }

    fn eval(&self, args: &[&Array], _: &[TensorType]) -> SmallVec<[Array; 2]> {
        args.iter().map(|&a| a.clone()).collect()
    }
}
