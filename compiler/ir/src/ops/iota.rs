//! `iota`: the numbers 0, 1, 2 ... along one dim.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{DType, Dim, Name, TensorType};

use super::elementwise::arity;
use crate::op::{Class, NodeIds, PartContext, Semantics, TextForm, Told, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Iota {
    pub dim: Dim,
    pub dtype: DType,
}

impl Semantics for Iota {
    const NAME: &'static str = "iota";
    const CLASS: Class = Class::Source;
    const TEXT: TextForm = TextForm { first: "", told: &[("dim", Told::Dim), ("dtype", Told::Dtype)] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        smallvec![&mut self.dim.name]
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 0, Self::NAME)?;
        Ok(smallvec![TensorType::new(self.dtype, [self.dim.clone()])])
    }

    fn localize(&self, results: &[TensorType]) -> Self {
        Self { dim: results[0].dims[0].clone(), dtype: self.dtype }
    }

    /// A part begins at its first index.
    fn partition(&self, cx: &mut PartContext<'_>) -> Option<NodeIds> {
        let start = cx.b.cast(cx.cuts[0]?.start, self.dtype);
        let numbers = cx.b.op(self.localize(cx.results), &[]);
        Some(smallvec![cx.b.add(numbers, start)])
    }

    fn flops(&self, _: &[&TensorType], _: &[TensorType]) -> u64 {
        0
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.none()
    }

    fn eval(&self, _: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::new(results[0].clone(), (0..self.dim.size).map(|i| i as f64).collect())]
    }
}
