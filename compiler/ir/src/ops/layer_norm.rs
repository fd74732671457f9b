//! `layer_norm`: (x - mean(x)) / sqrt(var(x) + eps) over one dim, without weight and bias (Ba et al., 2016).

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{Name, TensorType};

use super::elementwise::wide;
use super::{LayerNormGrad, Rsqrt, row};
use crate::op::{Class, NodeIds, Semantics, TextForm, Types, Vjp};
use crate::{Array, Builder, Factors, Mismatch, NodeId};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerNorm {
    pub dim: Name,
    pub eps: f64,
}

impl LayerNorm {
    /// The result and 1 / sqrt(var(x) + eps) as nodes; the gradient's expansion starts with them too.
    pub(super) fn normal(&self, b: &mut Builder, x: NodeId) -> (NodeId, NodeId) {
        let n = b.ty(x).size_of(&self.dim).unwrap_or(1) as f64;
        let dims = std::slice::from_ref(&self.dim);
        let sum = b.reduce_sum(x, dims);
        let mean = b.scale(sum, 1.0 / n);
        let centred = b.sub(x, mean);
        let square = b.mul(centred, centred);
        let sum = b.reduce_sum(square, dims);
        let var = b.scale(sum, 1.0 / n);
        let shifted = b.offset(var, self.eps);
        let inverse = b.op(Rsqrt {}, &[shifted]);
        (b.mul(centred, inverse), inverse)
    }
}

by_bits!(LayerNorm { dim; eps });

impl Semantics for LayerNorm {
    const NAME: &'static str = "layer_norm";
    const CLASS: Class = Class::Composite;
    const TEXT: TextForm = TextForm { first: "dim", told: &[] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        smallvec![&mut self.dim]
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        row::check_eps(self.eps, Self::NAME)?;
        row::infer(args, 1, &self.dim, Self::NAME)
    }

    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        row::factors(args, results, &self.dim)
    }

    fn flops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        5 * args[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let g = cx.cotangent();
        let grad = LayerNormGrad { dim: self.dim.clone(), eps: self.eps };
        smallvec![Some(cx.b.op(grad, &[cx.args[0], g]))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let x = args[0];
        let n = x.ty.size_of(&self.dim).unwrap_or(1) as f64;
        let rows = x.ty.without(std::slice::from_ref(&self.dim));
        let sums = x.fold(&rows, 0.0, |a, b| a + b);
        let squares = Array::zip(&x.ty, &[x, &sums], |v| (v[0] - v[1] / n).powi(2)).fold(&rows, 0.0, |a, b| a + b);
        smallvec![Array::zip(&results[0], &[x, &sums, &squares], |v| (v[0] - v[1] / n) / (v[2] / n + self.eps).sqrt())]
    }

    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let dtype = b.ty(args[0]).dtype;
        let x = b.cast(args[0], wide(dtype));
        let (y, _) = self.normal(b, x);
        Some(smallvec![b.cast(y, dtype)])
    }
}
