//! `gather`: rows of a table, picked by numbers: an embedding, a permutation.
//!
//! The table's dim is replaced by the dims of the ids. Ids must be in range; a row from outside is NaN.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{DType, Dim, Indices, Name, TensorType};

use super::compare::Comparison;
use super::elementwise::{arity, distinct};
use super::{Compare, Max, Min, ScatterAdd, Select};
use crate::array::{dot, for_each_index};
use crate::factors::{Factor, FactorKind};
use crate::op::{Class, NodeIds, PartContext, PartOf, Semantics, Types, Vjp};
use crate::{Array, Builder, Factors, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Gather {
    pub dim: Name,
}

impl Semantics for Gather {
    const NAME: &'static str = "gather";
    const CLASS: Class = Class::Move;

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        smallvec![&mut self.dim]
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 2, Self::NAME)?;
        let (table, ids) = (args[0], args[1]);
        if table.position(&self.dim).is_none() {
            return Err(Mismatch::new(format!("`{table}` has no dim {} to pick from", self.dim)).of([0]));
        }
        integers(ids, 1, Self::NAME)?;
        let mut ty = TensorType::scalar(table.dtype);
        for dim in &table.dims {
            if dim.name == self.dim {
                ty.dims.extend(ids.dims.iter().cloned());
            } else {
                ty.dims.push(dim.clone());
            }
        }
        Ok(smallvec![distinct(ty).map_err(|m| m.of([0, 1]))?])
    }

    /// A part of the table has some of the rows; it gives zeros for the others, so that the parts add up.
    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        let rest = args[0].without(std::slice::from_ref(&self.dim));
        let mut out = Factors::by_name(&[&rest, args[1]], results);
        let size = args[0].size_of(&self.dim).unwrap_or(0);
        out.factors.push(Factor { name: self.dim.clone(), size, kind: FactorKind::Sum });
        out.args[0].insert(args[0].position(&self.dim).unwrap_or(0), smallvec![out.factors.len() - 1]);
        out
    }

    fn indices(&self, args: &[&TensorType]) -> Option<(usize, Indices)> {
        Some((1, Indices { rows: args[0].size_of(&self.dim)? as u64, ignored: None }))
    }

    fn partition(&self, cx: &mut PartContext<'_>) -> Option<NodeIds> {
        let part = cx.cuts[cx.factors.factors.len() - 1]?;
        let rows = cx.b.ty(cx.args[0]).size_of(&self.dim).unwrap_or(0);
        let (ids, here) = inside(cx.b, cx.args[1], part, rows);
        let picked = cx.b.op(self.clone(), &[cx.args[0], ids]);
        let zero = cx.b.constant(0.0, cx.b.ty(picked).dtype);
        let ty = cx.b.ty(picked).with_dtype(DType::Bool);
        let here = cx.b.arrange(here, &ty);
        Some(smallvec![cx.b.op(Select {}, &[here, picked, zero])])
    }

    fn flops(&self, _: &[&TensorType], _: &[TensorType]) -> u64 {
        0
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let (table, g) = (cx.b.ty(cx.args[0]).clone(), cx.cotangent());
        let size = table.size_of(&self.dim).unwrap_or(0);
        let d = cx.b.op(ScatterAdd { dim: Dim { name: self.dim.clone(), size } }, &[g, cx.args[1]]);
        smallvec![Some(cx.b.arrange(d, &table)), None]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let (table, ids) = (args[0], args[1]);
        let p = table.ty.position(&self.dim).unwrap_or(0);
        let rank = ids.ty.rank();
        let (rows, strides) = (table.ty.dims[p].size, table.ty.strides());
        let mut data = Vec::with_capacity(results[0].elements());
        for_each_index(&results[0].sizes(), |index| {
            let id = ids.at(&index[p..p + rank]);
            let at = dot(&index[..p], &strides[..p]) + dot(&index[p + rank..], &strides[p + 1..]);
            let inside = id >= 0.0 && id < rows as f64;
            data.push(if inside { table.data[at + id as usize * strides[p]] } else { f64::NAN });
        });
        smallvec![Array::new(results[0].clone(), data)]
    }
}

/// Ids counted from the start of a part of `rows` rows, 0 for those that are not in it, and which are.
pub(super) fn inside(b: &mut Builder, ids: NodeId, part: PartOf, rows: usize) -> (NodeId, NodeId) {
    let dtype = b.ty(ids).dtype;
    let start = b.cast(part.start, dtype);
    let mut ids = b.sub(ids, start);
    // What a short part lacks is another rank's.
    if let Some(length) = part.length {
        let length = b.cast(length, dtype);
        let there = b.op(Compare { kind: Comparison::Less }, &[ids, length]);
        let nowhere = b.constant(-1.0, dtype);
        ids = b.op(Select {}, &[there, ids, nowhere]);
    }
    let zero = b.constant(0.0, dtype);
    let last = b.constant(rows.saturating_sub(1) as f64, dtype);
    let low = b.op(Max {}, &[ids, zero]);
    let safe = b.op(Min {}, &[low, last]);
    (safe, b.op(Compare { kind: Comparison::Equal }, &[safe, ids]))
}

/// That operand `i` holds whole numbers.
pub(super) fn integers(ty: &TensorType, i: usize, name: &str) -> Result<(), Mismatch> {
    if matches!(ty.dtype, DType::I64 | DType::I32) {
        return Ok(());
    }
    Err(Mismatch::new(format!("operand {i} of `{name}` is {}, not i64 or i32", ty.dtype)).of([i]))
}
