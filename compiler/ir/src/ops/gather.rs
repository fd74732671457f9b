//! `gather`: rows of a table, picked by numbers: an embedding, a permutation.
//!
//! The table's dim is replaced by the dims of the ids. Dims that table and ids share, but for that one, are batch dims:
//! each index along them has its own table and its own ids. Ids must be in range; a row from outside is NaN.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{DType, Dim, Indices, Name, TensorType};

use super::compare::Comparison;
use super::elementwise::{arity, distinct};
use super::{Compare, Max, Min, ScatterAdd, Select};
use crate::array::{dot, for_each_index, strides_in};
use crate::factors::{Factor, FactorKind};
use crate::op::{Class, NodeIds, PartContext, PartOf, Semantics, TextForm, Types, Vjp};
use crate::{Array, Builder, Factors, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Gather {
    pub dim: Name,
}

impl Gather {
    /// The dims of the ids that take the place of the table's dim; the others are batch dims.
    pub fn picked(&self, table: &TensorType, ids: &TensorType) -> SmallVec<[Dim; 4]> {
        let batch = |d: &&Dim| d.name != self.dim && table.position(&d.name).is_some();
        ids.dims.iter().filter(|d| !batch(d)).cloned().collect()
    }
}

impl Semantics for Gather {
    const NAME: &'static str = "gather";
    const CLASS: Class = Class::Move;
    const TEXT: TextForm = TextForm { first: "dim", told: &[] };

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
        let differs = |d: &&Dim| d.name != self.dim && table.size_of(&d.name).is_some_and(|size| size != d.size);
        if let Some(dim) = ids.dims.iter().find(differs) {
            let own = table.size_of(&dim.name).unwrap_or(0);
            return Err(Mismatch::new(format!("dim {} is {own} in `{table}` and {} in `{ids}`", dim.name, dim.size))
                .of([0, 1])
                .help("a dim of both has its own table and ids at each index; rename one of them to pick from all"));
        }
        let mut ty = TensorType::scalar(table.dtype);
        for dim in &table.dims {
            if dim.name == self.dim {
                ty.dims.extend(self.picked(table, ids));
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
        let (table, ids, mut g) = (cx.b.ty(cx.args[0]).clone(), cx.b.ty(cx.args[1]).clone(), cx.cotangent());
        let dim = Dim { name: self.dim.clone(), size: table.size_of(&self.dim).unwrap_or(0) };
        let picked = self.picked(&table, &ids);
        let batch: Vec<Name> = ids.dims.iter().filter(|d| !picked.contains(d)).map(|d| d.name.clone()).collect();
        // Batch dims stand before those of the ids.
        let last = batch.iter().filter_map(|name| table.position(name)).max();
        if last > table.position(&self.dim) {
            let own = cx.b.ty(g).clone();
            let rank = |d: &Dim| if batch.contains(&d.name) { 0 } else { 1 + usize::from(!picked.contains(d)) };
            let mut to = own.clone();
            to.dims.sort_by_key(rank);
            g = cx.b.arrange(g, &to);
        }
        let d = cx.b.op(ScatterAdd { dim, batch }, &[g, cx.args[1]]);
        smallvec![Some(cx.b.arrange(d, &table)), None]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let (table, ids) = (args[0], args[1]);
        let p = table.ty.position(&self.dim).unwrap_or(0);
        let rank = self.picked(&table.ty, &ids.ty).len();
        let (rows, strides, of_ids) = (table.ty.dims[p].size, table.ty.strides(), strides_in(&ids.ty, &results[0]));
        let mut data = Vec::with_capacity(results[0].elements());
        for_each_index(&results[0].sizes(), |index| {
            let id = ids.data[dot(index, &of_ids)];
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
