//! `write`: rows of a table replaced by others, those that numbers name: the keys and values of new tokens in a cache.
//!
//! The rows lie as [`Gather`] would pick them. An id from outside, such as -1, writes nothing. No two ids are the same. Where
//! a target can, the table changes in place.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{DType, Dim, Name, TensorType};

use super::compare::Comparison;
use super::elementwise::arity;
use super::gather::inside;
use super::{Compare, Gather, Iota, ReduceMax, Select};
use crate::array::{dot, for_each_index, strides_in};
use crate::factors::{Factor, FactorKind};
use crate::op::{Class, NodeIds, PartContext, PartOf, Semantics, TextForm, Types, Vjp};
use crate::{Array, Builder, Factors, Mismatch, NodeId};

/// Operands: the table, ids, rows; the result is the table with those rows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Write {
    pub dim: Name,
}

impl Write {
    fn gather(&self) -> Gather {
        Gather { dim: self.dim.clone() }
    }

    /// The dims of the ids that take the place of the table's.
    pub fn picked(&self, table: &TensorType, ids: &TensorType) -> SmallVec<[Dim; 4]> {
        self.gather().picked(table, ids)
    }
}

impl Semantics for Write {
    const NAME: &'static str = "write";
    const CLASS: Class = Class::Move;
    const TEXT: TextForm = TextForm { first: "dim", told: &[] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        smallvec![&mut self.dim]
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 3, Self::NAME)?;
        let (table, ids, rows) = (args[0], args[1], args[2]);
        if table.position(&self.dim).is_none() {
            return Err(Mismatch::new(format!("`{table}` has no dim {} to write along", self.dim)).of([0]));
        }
        let p = table.position(&self.dim).unwrap_or(0);
        let behind = |d: &&Dim| d.name != self.dim && table.position(&d.name).is_some_and(|at| at > p);
        if let Some(dim) = ids.dims.iter().find(behind) {
            return Err(Mismatch::new(format!("dim {} of `{ids}` stands behind {} in `{table}`", dim.name, self.dim))
                .of([0, 1])
                .help("dims that both have come before the rows"));
        }
        let picked = self.gather().infer(&[table, ids])?;
        if picked[0] != *rows {
            return Err(Mismatch::new(format!("rows `{rows}` do not go into `{table}` at `{ids}`"))
                .of([0, 1, 2])
                .help(format!("rows are `{}` there", picked[0])));
        }
        Ok(smallvec![table.clone()])
    }

    /// Each part of the table takes the rows that are its own.
    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        let rest = args[0].without(std::slice::from_ref(&self.dim));
        let picked: Vec<Name> = self.picked(args[0], args[1]).into_iter().map(|d| d.name).collect();
        let mut out = Factors::by_name(&[&rest, args[1], args[2]], std::slice::from_ref(&rest))
            .mark(&picked.iter().collect::<Vec<_>>(), FactorKind::Whole);
        let size = args[0].size_of(&self.dim).unwrap_or(0);
        out.factors.push(Factor { name: self.dim.clone(), size, kind: FactorKind::Parallel });
        let (at, own) = (args[0].position(&self.dim).unwrap_or(0), smallvec![out.factors.len() - 1]);
        let _ = results;
        out.args[0].insert(at, own);
        out.results[0] = out.args[0].clone();
        out
    }

    fn partition(&self, cx: &mut PartContext<'_>) -> Option<NodeIds> {
        let part = cx.cuts[cx.factors.factors.len() - 1]?;
        let rows = cx.b.ty(cx.args[0]).size_of(&self.dim).unwrap_or(0);
        let (ids, here) = inside(cx.b, cx.args[1], part, rows);
        let nowhere = cx.b.constant(-1.0, cx.b.ty(ids).dtype);
        let ids = cx.b.op(Select {}, &[here, ids, nowhere]);
        Some(smallvec![cx.b.op(self.clone(), &[cx.args[0], ids, cx.args[2]])])
    }

    fn flops(&self, _: &[&TensorType], _: &[TensorType]) -> u64 {
        0
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let (g, ids) = (cx.cotangent(), cx.args[1]);
        let (table, rows) = (cx.b.ty(cx.args[0]).clone(), cx.b.ty(cx.args[2]).clone());
        let none = cx.b.zeros(&rows);
        let of_table = cx.b.op(self.clone(), &[g, ids, none]);
        let part = PartOf { start: cx.b.constant(0.0, cx.b.ty(ids).dtype), length: None };
        let (safe, there) = inside(cx.b, ids, part, table.size_of(&self.dim).unwrap_or(0));
        let picked = cx.b.op(self.gather(), &[g, safe]);
        let there = cx.b.arrange(there, &rows.with_dtype(DType::Bool));
        let zero = cx.b.constant(0.0, rows.dtype);
        smallvec![Some(of_table), None, Some(cx.b.op(Select {}, &[there, picked, zero]))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let (table, ids, rows) = (args[0], args[1], args[2]);
        let p = table.ty.position(&self.dim).unwrap_or(0);
        let rank = self.picked(&table.ty, &ids.ty).len();
        let (size, strides, of_ids) = (table.ty.dims[p].size, table.ty.strides(), strides_in(&ids.ty, &rows.ty));
        let mut out = Array::new(results[0].clone(), table.data.clone());
        let mut from = 0;
        for_each_index(&rows.ty.sizes(), |index| {
            let id = ids.data[dot(index, &of_ids)];
            if id >= 0.0 && id < size as f64 {
                let at = dot(&index[..p], &strides[..p]) + dot(&index[p + rank..], &strides[p + 1..]);
                out.data[at + id as usize * strides[p]] = rows.data[from];
            }
            from += 1;
        });
        smallvec![out]
    }

    /// Each row of the table is that of the update which names it, or stays.
    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let (table, ids, rows) = (b.ty(args[0]).clone(), b.ty(args[1]).clone(), b.ty(args[2]).clone());
        let p = table.position(&self.dim)?;
        let picked = self.picked(&table, &ids);
        let count: usize = picked.iter().map(|d| d.size).product();
        let update = Dim { name: super::rope::fresh("update", &[&table, &ids]), size: count };
        // The ids' own dims as one, which stands last among them.
        let batch = ids.dims.iter().filter(|d| !picked.contains(d)).cloned();
        let ordered = TensorType::new(ids.dtype, batch.clone().chain(picked.iter().cloned()));
        let names = b.arrange(args[1], &ordered);
        let flat = TensorType::new(ids.dtype, batch.clone().chain([update.clone()]));
        let names = b.reshape(names, &flat);
        let dims = rows.dims[..p].iter().cloned().chain([update.clone()]).chain(rows.dims[p + picked.len()..].to_vec());
        let flat = TensorType::new(rows.dtype, dims);
        let new = b.reshape(args[2], &flat);
        // For each row of the table the update that names it, or -1.
        let at = b.op(Iota { dim: table.dims[p].clone(), dtype: ids.dtype }, &[]);
        let among = TensorType::new(ids.dtype, batch.chain([table.dims[p].clone(), update.clone()]));
        let (at, names) = (b.arrange(at, &among), b.arrange(names, &among));
        let same = b.op(Compare { kind: Comparison::Equal }, &[at, names]);
        let number = b.op(Iota { dim: update.clone(), dtype: ids.dtype }, &[]);
        let number = b.arrange(number, &among);
        let nowhere = b.constant(-1.0, ids.dtype);
        let which = b.op(Select {}, &[same, number, nowhere]);
        let which = b.op(ReduceMax { dims: vec![update.name.clone()] }, &[which]);
        let zero = b.constant(0.0, ids.dtype);
        let safe = b.op(super::Max {}, &[which, zero]);
        let written = b.op(Compare { kind: Comparison::GreaterEqual }, &[which, zero]);
        let new = b.op(Gather { dim: update.name }, &[new, safe]);
        let written = b.arrange(written, &table.with_dtype(DType::Bool));
        let new = b.arrange(new, &table);
        Some(smallvec![b.op(Select {}, &[written, new, args[0]])])
    }
}
