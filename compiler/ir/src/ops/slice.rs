//! `slice`: a run of elements along one dim.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{Name, TensorType};

use super::Pad;
use super::elementwise::arity;
use crate::array::for_each_index;
use crate::op::{Class, Semantics, TextForm, Types, Vjp};
use crate::{Array, Factors, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slice {
    pub dim: Name,
    pub start: usize,
    pub size: usize,
}

impl Semantics for Slice {
    const NAME: &'static str = "slice";
    const CLASS: Class = Class::Move;
    const TEXT: TextForm = TextForm { first: "dim", told: &[] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        smallvec![&mut self.dim]
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 1, Self::NAME)?;
        let Some(p) = args[0].position(&self.dim) else {
            return Err(Mismatch::new(format!("`{}` has no dim {} to slice", args[0], self.dim)).of([0]));
        };
        let mut ty = args[0].clone();
        if self.start.checked_add(self.size).is_none_or(|end| end > ty.dims[p].size) {
            return Err(Mismatch::new(format!("{} elements from {} on reach past {}", self.size, self.start, ty.dims[p]))
                .of([0]));
        }
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
        let (n, g) = (cx.b.ty(cx.args[0]).size_of(&self.dim).unwrap_or(0), cx.cotangent());
        let after = n.saturating_sub(self.start + self.size);
        smallvec![Some(cx.b.op(Pad { dim: self.dim.clone(), before: self.start, after, value: 0.0 }, &[g]))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let p = results[0].position(&self.dim).unwrap_or(0);
        let mut data = Vec::with_capacity(results[0].elements());
        for_each_index(&results[0].sizes(), |index| {
            let mut at: SmallVec<[usize; 8]> = SmallVec::from_slice(index);
            at[p] += self.start;
            data.push(args[0].at(&at));
        });
        smallvec![Array::new(results[0].clone(), data)]
    }
}
