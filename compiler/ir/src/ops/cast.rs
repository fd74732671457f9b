//! `cast`: the nearest value of another element type.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{DType, TensorType};

use super::elementwise::arity;
use crate::op::{Class, Semantics, TextForm, Told, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cast {
    pub to: DType,
}

impl Semantics for Cast {
    const NAME: &'static str = "cast";
    const CLASS: Class = Class::Elementwise;
    const TEXT: TextForm = TextForm { first: "", told: &[("to", Told::Dtype)] };

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 1, Self::NAME)?;
        Ok(smallvec![args[0].with_dtype(self.to)])
    }

    fn flops(&self, _: &[&TensorType], _: &[TensorType]) -> u64 {
        0
    }

    fn vector_ops(&self, _: &[&TensorType], results: &[TensorType]) -> u64 {
        results[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let (from, g) = (cx.b.ty(cx.args[0]).dtype, cx.cotangent());
        let differentiable = from.is_float() && self.to.is_float();
        smallvec![differentiable.then(|| cx.b.cast(g, from))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |x| x[0])]
    }
}
