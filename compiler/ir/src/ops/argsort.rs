//! `argsort`: along one dim, where the elements of each row stand in order.
//!
//! Equal elements keep their order, -0 is 0, and NaN comes last, whichever way the others are sorted.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{DType, Name, TensorType};

use super::elementwise::arity;
use super::row;
use crate::op::{Class, Semantics, TextForm, Types, Vjp};
use crate::{Array, Factors, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Argsort {
    pub dim: Name,
    pub descending: bool,
}

impl Argsort {
    /// The order of two elements.
    pub(super) fn order(descending: bool, a: f64, b: f64) -> Ordering {
        let numbers = a.partial_cmp(&b).map(|order| if descending { order.reverse() } else { order });
        numbers.unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
    }

    /// Comparisons of an element on its way to its place.
    pub(super) fn comparisons(size: usize) -> u64 {
        u64::from(size.max(2).next_power_of_two().ilog2())
    }
}

impl Semantics for Argsort {
    const NAME: &'static str = "argsort";
    const CLASS: Class = Class::Reduce;
    const TEXT: TextForm = TextForm { first: "dim", told: &[] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        smallvec![&mut self.dim]
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 1, Self::NAME)?;
        sortable(args[0], &self.dim, Self::NAME)?;
        Ok(smallvec![args[0].with_dtype(DType::I64)])
    }

    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        row::factors(args, results, &self.dim)
    }

    fn flops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        (args[0].elements() as u64).saturating_mul(Self::comparisons(args[0].size_of(&self.dim).unwrap_or(1)))
    }

    /// No comparison stands beside others in a vector.
    fn vector_ops(&self, args: &[&TensorType], results: &[TensorType]) -> u64 {
        self.flops(args, results).saturating_mul(8)
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.none()
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let x = args[0];
        let mut out = Array::zeros(results[0].clone());
        row::for_each(&x.ty, &self.dim, |places| {
            let places: Vec<usize> = places.collect();
            let mut order: Vec<usize> = (0..places.len()).collect();
            order.sort_by(|&a, &b| Self::order(self.descending, x.data[places[a]], x.data[places[b]]));
            places.iter().zip(order).for_each(|(&at, from)| out.data[at] = from as f64);
        });
        smallvec![out]
    }
}

/// That rows of `ty` along `dim` can be put in order.
pub(super) fn sortable(ty: &TensorType, dim: &Name, name: &str) -> Result<(), Mismatch> {
    if ty.position(dim).is_none() {
        return Err(Mismatch::new(format!("`{ty}` has no dim {dim} for `{name}`")).of([0]));
    }
    if ty.dtype == DType::Bool {
        return Err(Mismatch::new(format!("`{name}` of bool")).of([0]).help("cast it to a number first"));
    }
    Ok(())
}
