//! `pad`: elements of one value before and after those of the operand, along one dim.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{Name, TensorType};

use super::Slice;
use super::elementwise::arity;
use crate::array::for_each_index;
use crate::op::{Class, Semantics, TextForm, Types, Vjp};
use crate::{Array, Factors, Mismatch, NodeId};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pad {
    pub dim: Name,
    pub before: usize,
    pub after: usize,
    #[serde(with = "super::constant::number")]
    pub value: f64,
}

by_bits!(Pad { dim, before, after; value });

impl Semantics for Pad {
    const NAME: &'static str = "pad";
    const CLASS: Class = Class::Move;
    const TEXT: TextForm = TextForm { first: "dim", told: &[] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        smallvec![&mut self.dim]
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 1, Self::NAME)?;
        if self.value.is_nan() {
            return Err(Mismatch::new("padding that is not a number").of([0]));
        }
        let Some(p) = args[0].position(&self.dim) else {
            return Err(Mismatch::new(format!("`{}` has no dim {} to pad", args[0], self.dim)).of([0]));
        };
        let mut ty = args[0].clone();
        ty.dims[p].size = ty.dims[p].size.saturating_add(self.before).saturating_add(self.after);
        Ok(smallvec![ty])
    }

    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        Factors::by_name_except(&self.dim, args, results)
    }

    fn flops(&self, _: &[&TensorType], _: &[TensorType]) -> u64 {
        0
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let (size, g) = (cx.b.ty(cx.args[0]).size_of(&self.dim).unwrap_or(0), cx.cotangent());
        smallvec![Some(cx.b.op(Slice { dim: self.dim.clone(), start: self.before, size }, &[g]))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let p = results[0].position(&self.dim).unwrap_or(0);
        let size = args[0].ty.dims[p].size;
        let mut data = Vec::with_capacity(results[0].elements());
        for_each_index(&results[0].sizes(), |index| {
            let mut at: SmallVec<[usize; 8]> = SmallVec::from_slice(index);
            data.push(if (self.before..self.before + size).contains(&at[p]) {
                at[p] -= self.before;
                args[0].at(&at)
            } else {
                self.value
            });
        });
        smallvec![Array::new(results[0].clone(), data)]
    }
}
