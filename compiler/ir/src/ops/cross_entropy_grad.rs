//! `cross_entropy_grad`: the gradient of `cross_entropy` by the logits: g (softmax(logits) - onehot(label)).

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{Name, TensorType};

use super::elementwise::{FUNCTION, arity, wide};
use super::{CrossEntropy, Select, Softmax};
use crate::factors::FactorKind;
use crate::op::{Class, NodeIds, Semantics, TextForm, Types, Vjp};
use crate::{Array, Builder, Factors, Mismatch, NodeId};

/// Operands logits, labels and the cotangent of each token's loss.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CrossEntropyGrad {
    pub dim: Name,
    pub ignore: i64,
}

impl CrossEntropyGrad {
    fn forward(&self) -> CrossEntropy {
        CrossEntropy { dim: self.dim.clone(), ignore: self.ignore }
    }
}

impl Semantics for CrossEntropyGrad {
    const NAME: &'static str = "cross_entropy_grad";
    const CLASS: Class = Class::Composite;
    const TEXT: TextForm = TextForm { first: "dim", told: &[] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        smallvec![&mut self.dim]
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 3, Self::NAME)?;
        self.forward().check(args[0], args[1])?;
        if *args[2] != args[1].with_dtype(wide(args[0].dtype)) {
            return Err(Mismatch::new(format!("`{}` is no cotangent of losses for `{}`", args[2], args[1])).of([1, 2]));
        }
        Ok(smallvec![args[0].clone()])
    }

    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        Factors::by_name(args, results).mark(&[&self.dim], FactorKind::Whole)
    }

    fn flops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        6 * args[0].elements() as u64
    }

    fn vector_ops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        (FUNCTION + 5) * args[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.refuse(Self::NAME)
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let (logits, labels, g) = (args[0], args[1], args[2]);
        let rows = &g.ty;
        let max = logits.fold(rows, f64::NEG_INFINITY, f64::max);
        let e = Array::zip(&logits.ty, &[logits, &max], |v| libm::exp(v[0] - v[1]));
        let sum = e.fold(rows, 0.0, |a, b| a + b);
        let p = logits.ty.position(&self.dim).unwrap_or(0);
        let (classes, step) = (logits.ty.dims[p].size, logits.ty.strides()[p]);
        let mut out = Array::zip(&results[0], &[&e, &sum, g, labels], |v| {
            if v[3] == self.ignore as f64 { 0.0 } else { v[2] * v[0] / v[1] }
        });
        for (row, &label) in labels.data.iter().enumerate().filter(|(_, l)| **l != self.ignore as f64) {
            if label >= 0.0 && label < classes as f64 {
                out.data[row / step * step * classes + label as usize * step + row % step] -= g.data[row];
            }
        }
        smallvec![out]
    }

    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let dtype = b.ty(args[0]).dtype;
        let logits = b.cast(args[0], wide(dtype));
        let (hot, ignored) = self.forward().masks(b, logits, args[1]);
        let (e, sum, _) = Softmax::parts(b, logits, &self.dim);
        let scale = b.div(args[2], sum);
        let d = b.mul(e, scale);
        let less = b.sub(d, args[2]);
        let d = b.op(Select {}, &[hot, less, d]);
        let zero = b.constant(0.0, wide(dtype));
        let dx = b.op(Select {}, &[ignored, zero, d]);
        Some(smallvec![b.cast(dx, dtype)])
    }
}
