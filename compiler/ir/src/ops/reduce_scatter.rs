//! `reduce_scatter`: of the sum of all ranks' values, the piece along the first dim that is this rank's; that dim goes away.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{Name, TensorType};

use super::elementwise::arity;
use crate::op::{Class, Collective, piece, Semantics, TextForm, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

/// The interpreter takes every rank's value to be its own, and is the first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReduceScatter {
    /// They span the group, major first.
    pub axes: Vec<Name>,
    /// Why it is there.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub why: Name,
}

impl Semantics for ReduceScatter {
    const NAME: &'static str = "reduce_scatter";
    const CLASS: Class = Class::Collective;
    const TEXT: TextForm = TextForm { first: "axes", told: &[] };

    fn reason(&mut self) -> Option<&mut Name> {
        Some(&mut self.why)
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 1, Self::NAME)?;
        let Some(first) = args[0].dims.first() else {
            return Err(Mismatch::new(format!("`{}` has no first dim, one piece for each rank", args[0])).of([0]));
        };
        Ok(smallvec![args[0].without(std::slice::from_ref(&first.name))])
    }

    fn flops(&self, _: &[&TensorType], _: &[TensorType]) -> u64 {
        0
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.refuse(Self::NAME)
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let ranks = args[0].ty.dims.first().map_or(1, |d| d.size) as f64;
        let piece = results[0].elements();
        smallvec![Array::new(results[0].clone(), args[0].data[..piece].iter().map(|x| x * ranks).collect())]
    }

    fn describe_chunk(&self, count: usize) -> Self {
        Self { why: piece(&self.why, count), ..self.clone() }
    }

    fn collective(&self) -> Option<Collective> {
        Some(Collective::ReduceScatter { axes: self.axes.clone(), why: self.why.clone() })
    }
}
