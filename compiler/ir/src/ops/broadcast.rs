//! `broadcast`: repeats elements along dims that the operand lacks. Elementwise operators do so by themselves; this is
//! for the few that want a full operand.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{Dim, Name, TensorType};

use super::elementwise::{arity, distinct};
use crate::op::{Class, Semantics, TextForm, Told, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Broadcast {
    /// All dims of the result; the operand's are among them in the same order.
    pub dims: Vec<Dim>,
}

impl Semantics for Broadcast {
    const NAME: &'static str = "broadcast";
    const CLASS: Class = Class::Move;
    const TEXT: TextForm = TextForm { first: "", told: &[("dims", Told::Dims)] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        self.dims.iter_mut().map(|dim| &mut dim.name).collect()
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 1, Self::NAME)?;
        let ty = distinct(TensorType::new(args[0].dtype, self.dims.iter().cloned()))?;
        let mut dims = ty.dims.iter();
        for own in &args[0].dims {
            if !dims.any(|d| d == own) {
                return Err(Mismatch::new(format!("`{}` does not broadcast to `{ty}`", args[0]))
                    .of([0])
                    .help("the dims of the operand must stand in the result, with the same sizes and in the same order"));
            }
        }
        Ok(smallvec![ty])
    }

    fn localize(&self, results: &[TensorType]) -> Self {
        Self { dims: results[0].dims.to_vec() }
    }

    fn flops(&self, _: &[&TensorType], _: &[TensorType]) -> u64 {
        0
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let g = cx.cotangent();
        smallvec![Some(cx.sum_to(g, 0))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |x| x[0])]
    }
}
