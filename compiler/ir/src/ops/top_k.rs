//! `top_k`: the largest elements of each row along one dim, the largest first, and where they stand.
//!
//! The order is total: the lower index comes first among equal elements, -0 is 0, and NaN comes after all numbers.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{DType, Dim, Name, TensorType};

use super::argsort::sortable;
use super::elementwise::{arity, distinct};
use super::{Argsort, Gather, ScatterAdd, Slice, row};
use crate::factors::FactorKind;
use crate::op::{Class, NodeIds, Semantics, TextForm, Types, Vjp};
use crate::{Array, Builder, Factors, Mismatch, NodeId};

/// Results: the values, and their indices as i64; both have `to` in place of `dim`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopK {
    pub dim: Name,
    pub to: Dim,
}

impl Semantics for TopK {
    const NAME: &'static str = "top_k";
    const CLASS: Class = Class::Composite;
    const TEXT: TextForm = TextForm { first: "dim", told: &[] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        smallvec![&mut self.dim, &mut self.to.name]
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 1, Self::NAME)?;
        sortable(args[0], &self.dim, Self::NAME)?;
        let mut ty = args[0].clone();
        let at = ty.position(&self.dim).unwrap_or(0);
        if self.to.size > ty.dims[at].size || self.to.size == 0 {
            return Err(Mismatch::new(format!("the {} largest of {}", self.to.size, ty.dims[at]))
                .of([0])
                .help(format!("{} has from 1 to {} elements", self.to.name, ty.dims[at].size)));
        }
        ty.dims[at] = self.to.clone();
        let ty = distinct(ty).map_err(|m| m.of([0]))?;
        Ok(smallvec![ty.clone(), ty.with_dtype(DType::I64)])
    }

    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        if self.dim == self.to.name {
            return Factors::by_name_except(&self.dim, args, results);
        }
        Factors::by_name(args, results).mark(&[&self.dim, &self.to.name], FactorKind::Whole)
    }

    /// Each element meets the least of those found so far, and few go further.
    fn flops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        (args[0].elements() as u64).saturating_mul(2)
    }

    fn vector_ops(&self, args: &[&TensorType], results: &[TensorType]) -> u64 {
        self.flops(args, results).saturating_mul(4)
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let Some(g) = cx.cotangents[0] else { return cx.none() };
        let (x, ids) = (cx.b.ty(cx.args[0]).clone(), cx.results[1]);
        let rest = x.without(std::slice::from_ref(&self.dim));
        let mut rows = rest.with_dtype(cx.b.ty(g).dtype);
        rows.dims.push(self.to.clone());
        let g = cx.b.arrange(g, &rows);
        let size = x.size_of(&self.dim).unwrap_or(1);
        let batch = rest.dims.iter().map(|d| d.name.clone()).collect();
        let d = cx.b.op(ScatterAdd { dim: Dim { name: self.dim.clone(), size }, batch }, &[g, ids]);
        smallvec![Some(cx.b.arrange(d, &x))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let x = args[0];
        let [mut values, mut ids] = [0, 1].map(|i| Array::zeros(results[i].clone()));
        let mut kept: Vec<Vec<usize>> = vec![];
        row::for_each(&results[0], &self.to.name, |places| kept.push(places.collect()));
        let mut kept = kept.into_iter();
        row::for_each(&x.ty, &self.dim, |places| {
            let places: Vec<usize> = places.collect();
            let mut order: Vec<usize> = (0..places.len()).collect();
            order.sort_by(|&a, &b| Argsort::order(true, x.data[places[a]], x.data[places[b]]));
            for (at, from) in kept.next().into_iter().flatten().zip(order) {
                (values.data[at], ids.data[at]) = (x.data[places[from]], from as f64);
            }
        });
        smallvec![values, ids]
    }

    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let results = self.infer(&[b.ty(args[0])]).ok()?;
        let order = b.op(Argsort { dim: self.dim.clone(), descending: true }, args);
        let first = b.op(Slice { dim: self.dim.clone(), start: 0, size: self.to.size }, &[order]);
        let ids = b.reshape(first, &results[1]);
        let values = b.op(Gather { dim: self.dim.clone() }, &[args[0], ids]);
        Some(smallvec![values, ids])
    }
}
