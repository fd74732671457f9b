//! `scatter_add`: sums rows into the rows of a table of zeros that numbers name; the gradient of `gather`.
//!
//! The dims of the ids, which stand together in the updates, are replaced by the table's dim; for a single id it comes
//! first. Those of the ids' dims that are batch dims stay: each index along them has a table and ids of its own. They stand
//! before the others in the updates. Sums are kept in f32 and rounded once. Ids must be in range; one from outside makes
//! its column NaN.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{DType, Dim, Name, TensorType};

use super::elementwise::{arity, distinct};
use super::gather::{inside, integers};
use super::{Gather, Select};
use crate::array::{dot, for_each_index, strides_in};
use crate::factors::{Factor, FactorKind};
use crate::op::{Class, NodeIds, PartContext, Semantics, Types, Vjp};
use crate::{Array, Factors, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ScatterAdd {
    pub dim: Dim,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub batch: Vec<Name>,
}

impl ScatterAdd {
    /// Where the dims of the ids that are no batch dims stand in the updates.
    pub fn picked(&self, updates: &TensorType, ids: &TensorType) -> Option<Range<usize>> {
        let (batch, picked): (Vec<Dim>, Vec<Dim>) = ids.dims.iter().cloned().partition(|d| self.batch.contains(&d.name));
        let after = batch.iter().map(|d| updates.dims.iter().position(|u| u == d).map(|p| p + 1));
        let after = after.collect::<Option<Vec<usize>>>()?.into_iter().max().unwrap_or(0);
        let start = picked.first().map_or(Some(after), |first| updates.position(&first.name))?;
        (start >= after && updates.dims[start..].starts_with(&picked)).then_some(start..start + picked.len())
    }
}

impl Semantics for ScatterAdd {
    const NAME: &'static str = "scatter_add";
    const CLASS: Class = Class::Reduce;

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        std::iter::once(&mut self.dim.name).chain(&mut self.batch).collect()
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 2, Self::NAME)?;
        let (updates, ids) = (args[0], args[1]);
        integers(ids, 1, Self::NAME)?;
        if !updates.dtype.is_float() {
            return Err(Mismatch::new(format!("`scatter_add` of {}", updates.dtype)).of([0]));
        }
        if let Some(name) = self.batch.iter().find(|n| ids.position(n).is_none()) {
            return Err(Mismatch::new(format!("`{ids}` has no batch dim {name}")).of([1]));
        }
        let Some(picked) = self.picked(updates, ids) else {
            let together = Mismatch::new(format!("the dims of `{ids}` do not stand together in `{updates}`")).of([0, 1]);
            let batch = !self.batch.is_empty();
            return Err(if batch { together.help("batch dims come before the others, in any order") } else { together });
        };
        let mut ty = TensorType::new(updates.dtype, updates.dims[..picked.start].iter().cloned());
        ty.dims.push(self.dim.clone());
        ty.dims.extend(updates.dims[picked.end..].iter().cloned());
        Ok(smallvec![distinct(ty).map_err(|m| m.of([0]))?])
    }

    /// Cutting the ids leaves partial sums; a part of the table takes the updates of its own rows.
    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        let rest = results[0].without(std::slice::from_ref(&self.dim.name));
        let mut out = Factors::by_name(args, &[rest]);
        out.factors.push(Factor { name: self.dim.name.clone(), size: self.dim.size, kind: FactorKind::Parallel });
        out.results[0].insert(results[0].position(&self.dim.name).unwrap_or(0), smallvec![out.factors.len() - 1]);
        out
    }

    fn partition(&self, cx: &mut PartContext<'_>) -> Option<NodeIds> {
        let part = cx.cuts[cx.factors.factors.len() - 1]?;
        let dim = Dim { name: self.dim.name.clone(), size: cx.results[0].size_of(&self.dim.name)? };
        let (ids, here) = inside(cx.b, cx.masked[1], part, dim.size);
        let updates = cx.b.ty(cx.masked[0]).clone();
        let here = cx.b.arrange(here, &updates.with_dtype(DType::Bool));
        let zero = cx.b.constant(0.0, updates.dtype);
        let updates = cx.b.op(Select {}, &[here, cx.masked[0], zero]);
        Some(smallvec![cx.b.op(ScatterAdd { dim, batch: self.batch.clone() }, &[updates, ids])])
    }

    fn flops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        args[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let g = cx.cotangent();
        smallvec![Some(cx.b.op(Gather { dim: self.dim.name.clone() }, &[g, cx.args[1]])), None]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let (updates, ids) = (args[0], args[1]);
        let picked = self.picked(&updates.ty, &ids.ty).unwrap_or(0..0);
        let (p, rank) = (picked.start, picked.len());
        let (strides, of_ids) = (results[0].strides(), strides_in(&ids.ty, &updates.ty));
        let mut out = Array::zeros(results[0].clone());
        let mut from = 0;
        for_each_index(&updates.ty.sizes(), |index| {
            let id = ids.data[dot(index, &of_ids)];
            let at = dot(&index[..p], &strides[..p]) + dot(&index[p + rank..], &strides[p + 1..]);
            if id >= 0.0 && id < self.dim.size as f64 {
                out.data[at + id as usize * strides[p]] += updates.data[from];
            } else {
                for row in 0..self.dim.size {
                    out.data[at + row * strides[p]] = f64::NAN;
                }
            }
            from += 1;
        });
        smallvec![out]
    }
}
