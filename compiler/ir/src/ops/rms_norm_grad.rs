//! `rms_norm_grad`: the gradient of `rms_norm` by its operand, from the operand and the cotangent.
//!
//! With r = 1 / sqrt(mean(x^2) + eps): dx = r * (g - x * r^2 * mean(g * x)).

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{Name, TensorType};

use super::RmsNorm;
use super::elementwise::wide;
use super::row;
use crate::op::{Class, NodeIds, Semantics, TextForm, Types, Vjp};
use crate::{Array, Builder, Factors, Mismatch, NodeId};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RmsNormGrad {
    pub dim: Name,
    pub eps: f64,
}

by_bits!(RmsNormGrad { dim; eps });

impl Semantics for RmsNormGrad {
    const NAME: &'static str = "rms_norm_grad";
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
        8 * args[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.refuse(Self::NAME)
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let (x, g) = (args[0], args[1]);
        let n = x.ty.size_of(&self.dim).unwrap_or(1) as f64;
        let rows = x.ty.without(std::slice::from_ref(&self.dim));
        let sum = |a: &Array, b: &Array| Array::zip(&x.ty, &[a, b], |v| v[0] * v[1]).fold(&rows, 0.0, |s, v| s + v);
        let (squares, products) = (sum(x, x), sum(g, x));
        smallvec![Array::zip(&results[0], &[x, g, &squares, &products], |v| {
            let r = 1.0 / (v[2] / n + self.eps).sqrt();
            r * (v[1] - v[0] * r * r * v[3] / n)
        })]
    }

    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let dtype = b.ty(args[0]).dtype;
        let x = b.cast(args[0], wide(dtype));
        let g = b.cast(args[1], wide(dtype));
        let n = b.ty(x).size_of(&self.dim).unwrap_or(1) as f64;
        let r = RmsNorm { dim: self.dim.clone(), eps: self.eps }.inverse(b, x);
        let product = b.mul(g, x);
        let sum = b.reduce_sum(product, std::slice::from_ref(&self.dim));
        let mean = b.scale(sum, 1.0 / n);
        let square = b.mul(r, r);
        let factor = b.mul(square, mean);
        let along = b.mul(x, factor);
        let across = b.sub(g, along);
        let dx = b.mul(across, r);
        Some(smallvec![b.cast(dx, dtype)])
    }
}
