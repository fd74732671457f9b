//! `iota`: the numbers 0, 1, 2 ... along one dim.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{DType, Dim, TensorType};

use super::elementwise::arity;
use crate::factors::FactorKind;
use crate::op::{Class, Semantics, Types, Vjp};
use crate::{Array, Factors, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Iota {
    pub dim: Dim,
    pub dtype: DType,
}

impl Semantics for Iota {
    const NAME: &'static str = "iota";
    const CLASS: Class = Class::Source;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 0, Self::NAME)?;
        Ok(smallvec![TensorType::new(self.dtype, [self.dim.clone()])])
    }

    /// Whole, since a part would have to start at another number on each rank.
    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        Factors::by_name(args, results).mark(&[&self.dim.name], FactorKind::Whole)
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
