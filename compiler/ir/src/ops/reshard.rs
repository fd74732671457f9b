//! `reshard`: the same value, held by the ranks in another way. Which way is its node's sharding.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{Name, TensorType};

use super::elementwise::arity;
use crate::op::{Class, Semantics, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

/// The only operator whose operand and result may differ in sharding.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reshard {
    /// Who needs it: `matmul needs L whole over tp`.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub why: Name,
}

impl Semantics for Reshard {
    const NAME: &'static str = "reshard";
    const CLASS: Class = Class::Collective;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 1, Self::NAME)?;
        Ok(smallvec![args[0].clone()])
    }

    fn flops(&self, _: &[&TensorType], _: &[TensorType]) -> u64 {
        0
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        smallvec![Some(cx.cotangent())]
    }

    fn eval(&self, args: &[&Array], _: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![args[0].clone()]
    }
}
