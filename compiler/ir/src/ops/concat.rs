//! `concat`: tensors one after the other along one dim.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{Name, TensorType};

use super::Slice;
use crate::array::for_each_index;
use crate::op::{Class, Semantics, TextForm, Types, Vjp};
use crate::{Array, Factors, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Concat {
    pub dim: Name,
}

impl Semantics for Concat {
    const NAME: &'static str = "concat";
    const CLASS: Class = Class::Move;
    const TEXT: TextForm = TextForm { first: "dim", told: &[] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        smallvec![&mut self.dim]
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        let Some(first) = args.first() else { return Err(Mismatch::new("`concat` takes at least one operand")) };
        let Some(p) = first.position(&self.dim) else {
            return Err(Mismatch::new(format!("`{first}` has no dim {} to join along", self.dim)).of([0]));
        };
        let mut ty = (*first).clone();
        for (i, arg) in args.iter().enumerate().skip(1) {
            let mut other = (*arg).clone();
            let fits = other.position(&self.dim) == Some(p) && {
                other.dims[p].size = first.dims[p].size;
                other == **first
            };
            if !fits {
                return Err(Mismatch::new(format!("`{first}` and `{arg}` do not join along {}", self.dim))
                    .of([0, i])
                    .help("all other dims, their order and the element type must be equal"));
            }
            ty.dims[p].size = ty.dims[p].size.saturating_add(arg.dims[p].size);
        }
        Ok(smallvec![ty])
    }

    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        Factors::by_name_except(&self.dim, args, results)
    }

    fn flops(&self, _: &[&TensorType], _: &[TensorType]) -> u64 {
        0
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let g = cx.cotangent();
        let mut start = 0;
        let mut out = SmallVec::new();
        for (&arg, &wanted) in cx.args.iter().zip(cx.wanted) {
            let size = cx.b.ty(arg).size_of(&self.dim).unwrap_or(0);
            out.push(wanted.then(|| cx.b.op(Slice { dim: self.dim.clone(), start, size }, &[g])));
            start += size;
        }
        out
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let p = results[0].position(&self.dim).unwrap_or(0);
        let mut data = Vec::with_capacity(results[0].elements());
        for_each_index(&results[0].sizes(), |index| {
            let mut at: SmallVec<[usize; 8]> = SmallVec::from_slice(index);
            let mut of = args[0];
            for arg in args {
                of = arg;
                if at[p] < arg.ty.dims[p].size {
                    break;
                }
                at[p] -= arg.ty.dims[p].size;
            }
            data.push(of.at(&at));
        });
        smallvec![Array::new(results[0].clone(), data)]
    }
}
