//! `layer_norm_grad`: the gradient of `layer_norm` by its operand, from the operand and the cotangent.
//!
//! With y the result and r = 1 / sqrt(var(x) + eps): dx = r (g - mean(g) - y mean(g y)).

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{Name, TensorType};

use super::LayerNorm;
use super::elementwise::wide;
use super::row;
use crate::op::{Class, NodeIds, Semantics, TextForm, Types, Vjp};
use crate::{Array, Builder, Factors, Mismatch, NodeId};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerNormGrad {
    pub dim: Name,
    pub eps: f64,
}

by_bits!(LayerNormGrad { dim; eps });

impl Semantics for LayerNormGrad {
    const NAME: &'static str = "layer_norm_grad";
    const CLASS: Class = Class::Composite;
    const TEXT: TextForm = TextForm { first: "dim", told: &[] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        smallvec![&mut self.dim]
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        row::check_eps(self.eps, Self::NAME)?;
        row::infer(args, 2, &self.dim, Self::NAME)
    }

    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        row::factors(args, results, &self.dim)
    }

    fn flops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        12 * args[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.refuse(Self::NAME)
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let (x, g) = (args[0], args[1]);
        let n = x.ty.size_of(&self.dim).unwrap_or(1) as f64;
        let rows = x.ty.without(std::slice::from_ref(&self.dim));
        let sum = |a: &Array| a.fold(&rows, 0.0, |s, v| s + v);
        let means = sum(x);
        let centred = Array::zip(&x.ty, &[x, &means], |v| v[0] - v[1] / n);
        let squares = sum(&Array::zip(&x.ty, &[&centred], |v| v[0] * v[0]));
        let products = sum(&Array::zip(&x.ty, &[g, &centred], |v| v[0] * v[1]));
        smallvec![Array::zip(&results[0], &[&centred, g, &squares, &products, &sum(g)], |v| {
            let variance = v[2] / n + self.eps;
            (v[1] - v[4] / n - v[0] * v[3] / (n * variance)) / variance.sqrt()
        })]
    }

    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let dtype = b.ty(args[0]).dtype;
        let x = b.cast(args[0], wide(dtype));
        let g = b.cast(args[1], wide(dtype));
        let n = b.ty(x).size_of(&self.dim).unwrap_or(1) as f64;
        let dims = std::slice::from_ref(&self.dim);
        let (y, inverse) = LayerNorm { dim: self.dim.clone(), eps: self.eps }.normal(b, x);
        let sum = b.reduce_sum(g, dims);
        let mean = b.scale(sum, 1.0 / n);
        let product = b.mul(g, y);
        let sum = b.reduce_sum(product, dims);
        let share = b.scale(sum, 1.0 / n);
        let along = b.mul(y, share);
        let d = b.sub(g, mean);
        let d = b.sub(d, along);
        let dx = b.mul(d, inverse);
        Some(smallvec![b.cast(dx, dtype)])
    }
}
