//! `reduce_sum`: the sum over the dims named.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{DType, Name, TensorType};

use super::elementwise::arity;
use crate::op::{Class, Semantics, TextForm, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReduceSum {
    pub dims: Vec<Name>,
}

impl Semantics for ReduceSum {
    const NAME: &'static str = "reduce_sum";
    const CLASS: Class = Class::Reduce;
    const TEXT: TextForm = TextForm { first: "dims", told: &[] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        self.dims.iter_mut().collect()
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 1, Self::NAME)?;
        if let Some(name) = self.dims.iter().find(|n| args[0].position(n).is_none()) {
            return Err(Mismatch::new(format!("`{}` has no dim {name} to sum over", args[0])).of([0]));
        }
        if args[0].dtype == DType::Bool {
            return Err(Mismatch::new("a sum of bool would be bool").of([0]).help("cast it to a number first"));
        }
        Ok(smallvec![args[0].without(&self.dims)])
    }

    fn flops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        args[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let (to, g) = (cx.b.ty(cx.args[0]).clone(), cx.cotangent());
        smallvec![Some(cx.b.arrange(g, &to))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![args[0].fold(&results[0], 0.0, |a, b| a + b)]
    }
}
