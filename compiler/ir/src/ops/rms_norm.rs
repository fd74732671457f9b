//! `rms_norm`: x / sqrt(mean(x^2) + eps) over one dim, without a weight (Zhang and Sennrich, 2019).

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{Name, TensorType};

use super::elementwise::wide;
use super::{RmsNormGrad, Rsqrt, row};
use crate::op::{Class, NodeIds, Semantics, TextForm, Types, Vjp};
use crate::{Array, Builder, Factors, Mismatch, NodeId};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RmsNorm {
    pub dim: Name,
    pub eps: f64,
}

impl RmsNorm {
    /// 1 / sqrt(mean(x^2) + eps) as nodes; also the gradient's expansion starts with it.
    pub(super) fn inverse(&self, b: &mut Builder, x: NodeId) -> NodeId {
        let n = b.ty(x).size_of(&self.dim).unwrap_or(1) as f64;
        let square = b.mul(x, x);
        let sum = b.reduce_sum(square, std::slice::from_ref(&self.dim));
        let mean = b.scale(sum, 1.0 / n);
        let shifted = b.offset(mean, self.eps);
        b.op(Rsqrt {}, &[shifted])
    }
}

by_bits!(RmsNorm { dim; eps });

impl Semantics for RmsNorm {
    const NAME: &'static str = "rms_norm";
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
        3 * args[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let g = cx.cotangent();
        let grad = RmsNormGrad { dim: self.dim.clone(), eps: self.eps };
        smallvec![Some(cx.b.op(grad, &[cx.args[0], g]))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let x = args[0];
        let n = x.ty.size_of(&self.dim).unwrap_or(1) as f64;
        let rows = x.ty.without(std::slice::from_ref(&self.dim));
        let squares = Array::new(x.ty.clone(), x.data.iter().map(|v| v * v).collect()).fold(&rows, 0.0, |a, b| a + b);
        smallvec![Array::zip(&results[0], &[x, &squares], |v| v[0] / (v[1] / n + self.eps).sqrt())]
    }

    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let dtype = b.ty(args[0]).dtype;
        let x = b.cast(args[0], wide(dtype));
        let inverse = self.inverse(b, x);
        let y = b.mul(x, inverse);
        Some(smallvec![b.cast(y, dtype)])
    }
}
