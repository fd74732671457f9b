//! `cumsum`: along one dim, the sum of each element and those before it; or, in reverse, of those after it.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{DType, Name, TensorType};

use super::elementwise::arity;
use super::row;
use crate::op::{Class, Semantics, TextForm, Types, Vjp};
use crate::{Array, Factors, Mismatch, NodeId};

/// Sums of floats are kept in f64 and each is rounded once; whole numbers wrap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cumsum {
    pub dim: Name,
    pub reverse: bool,
}

impl Semantics for Cumsum {
    const NAME: &'static str = "cumsum";
    const CLASS: Class = Class::Reduce;
    const TEXT: TextForm = TextForm { first: "dim", told: &[] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        smallvec![&mut self.dim]
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 1, Self::NAME)?;
        if args[0].position(&self.dim).is_none() {
            return Err(Mismatch::new(format!("`{}` has no dim {} to sum along", args[0], self.dim)).of([0]));
        }
        if args[0].dtype == DType::Bool {
            return Err(Mismatch::new("a sum of bool would be bool").of([0]).help("cast it to a number first"));
        }
        Ok(smallvec![args[0].clone()])
    }

    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        row::factors(args, results, &self.dim)
    }

    /// Each sum waits for the one before it.
    fn vector_ops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        4 * args[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let g = cx.cotangent();
        smallvec![Some(cx.b.op(Self { dim: self.dim.clone(), reverse: !self.reverse }, &[g]))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let mut out = Array::new(results[0].clone(), args[0].data.clone());
        row::for_each(&out.ty.clone(), &self.dim, |places| {
            let mut sum = 0.0;
            let mut add = |at: usize| {
                sum += out.data[at];
                out.data[at] = sum;
            };
            if self.reverse { places.rev().for_each(&mut add) } else { places.for_each(&mut add) }
        });
        smallvec![out]
    }
}
