//! `window`: a run of elements along one dim that begins where a number says; zeros where it reaches past the end.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{DType, Name, TensorType};

use super::elementwise::arity;
use crate::array::for_each_index;
use crate::op::{Class, Semantics, TextForm, Types, Vjp};
use crate::{Array, Factors, Mismatch, NodeId};

/// Operands: a tensor, and the first element as an i64, which is not negative.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    pub dim: Name,
    pub size: usize,
}

impl Semantics for Window {
    const NAME: &'static str = "window";
    const CLASS: Class = Class::Move;
    const TEXT: TextForm = TextForm { first: "dim", told: &[] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        smallvec![&mut self.dim]
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 2, Self::NAME)?;
        let Some(p) = args[0].position(&self.dim) else {
            return Err(Mismatch::new(format!("`{}` has no dim {} to look at", args[0], self.dim)).of([0]));
        };
        if *args[1] != TensorType::scalar(DType::I64) {
            return Err(Mismatch::new(format!("`window` begins at `{}`, not at one i64", args[1])).of([1]));
        }
        let mut ty = args[0].clone();
        ty.dims[p].size = self.size;
        Ok(smallvec![ty])
    }

    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        Factors::by_name_except(&self.dim, args, results)
    }

    fn flops(&self, _: &[&TensorType], _: &[TensorType]) -> u64 {
        0
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.refuse(Self::NAME)
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let p = results[0].position(&self.dim).unwrap_or(0);
        let (start, size) = (args[1].data[0], args[0].ty.dims[p].size);
        let mut data = Vec::with_capacity(results[0].elements());
        for_each_index(&results[0].sizes(), |index| {
            let mut at: SmallVec<[usize; 8]> = SmallVec::from_slice(index);
            at[p] += start.max(0.0) as usize;
            data.push(if at[p] < size { args[0].at(&at) } else { 0.0 });
        });
        smallvec![Array::new(results[0].clone(), data)]
    }
}
