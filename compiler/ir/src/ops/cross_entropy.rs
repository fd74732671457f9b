//! `cross_entropy`: log(sum(e^logits)) - logits[label] for each token; 0 where the label is the one to ignore.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{DType, Dim, Indices, Name, TensorType};

use super::compare::Comparison;
use super::elementwise::{FUNCTION, arity, wide};
use super::gather::integers;
use super::{Compare, CrossEntropyGrad, Iota, Log, Select, Softmax};
use crate::factors::FactorKind;
use crate::op::{Class, NodeIds, Semantics, TextForm, Types, Vjp};
use crate::{Array, Builder, Factors, Mismatch, NodeId};

/// Operands logits and labels; labels have the other dims of the logits. A label must be in range or be `ignore`.
/// The loss is f32 (f64 for f64 logits).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CrossEntropy {
    pub dim: Name,
    pub ignore: i64,
}

impl CrossEntropy {
    pub(super) fn check(&self, logits: &TensorType, labels: &TensorType) -> Result<(), Mismatch> {
        if logits.position(&self.dim).is_none() || !logits.dtype.is_float() {
            return Err(Mismatch::new(format!("`{logits}` are no logits over {}", self.dim)).of([0]));
        }
        integers(labels, 1, Self::NAME)?;
        if labels.dims != logits.without(std::slice::from_ref(&self.dim)).dims {
            return Err(Mismatch::new(format!("labels `{labels}` for logits `{logits}`"))
                .of([0, 1])
                .help(format!("labels have the dims of the logits except {}", self.dim)));
        }
        Ok(())
    }

    /// Whether each logit is the label's, and whether each label is to be ignored, as nodes.
    pub(super) fn masks(&self, b: &mut Builder, logits: NodeId, labels: NodeId) -> (NodeId, NodeId) {
        let dtype = b.ty(labels).dtype;
        let size = b.ty(logits).size_of(&self.dim).unwrap_or(0);
        // Where they fit, classes are compared in 32 bits: a vector holds twice as many.
        let narrow = if i32::try_from(size).is_ok() { DType::I32 } else { dtype };
        let classes = b.op(Iota { dim: Dim { name: self.dim.clone(), size }, dtype: narrow }, &[]);
        let own = b.cast(labels, narrow);
        // By names alone the new dim comes last.
        let hot = b.op(Compare { kind: Comparison::Equal }, &[own, classes]);
        let full = b.ty(logits).with_dtype(DType::Bool);
        let hot = b.arrange(hot, &full);
        let ignore = b.constant(self.ignore as f64, dtype);
        (hot, b.op(Compare { kind: Comparison::Equal }, &[labels, ignore]))
    }
}

impl Semantics for CrossEntropy {
    const NAME: &'static str = "cross_entropy";
    const CLASS: Class = Class::Composite;
    const TEXT: TextForm = TextForm { first: "dim", told: &[] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        smallvec![&mut self.dim]
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 2, Self::NAME)?;
        self.check(args[0], args[1])?;
        Ok(smallvec![args[1].with_dtype(wide(args[0].dtype))])
    }

    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        Factors::by_name(args, results).mark(&[&self.dim], FactorKind::Whole)
    }

    fn flops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        4 * args[0].elements() as u64
    }

    fn vector_ops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        (FUNCTION + 3) * args[0].elements() as u64
    }

    fn indices(&self, args: &[&TensorType]) -> Option<(usize, Indices)> {
        Some((1, Indices { rows: args[0].size_of(&self.dim)? as u64, ignored: Some(self.ignore) }))
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let g = cx.cotangent();
        let grad = CrossEntropyGrad { dim: self.dim.clone(), ignore: self.ignore };
        smallvec![Some(cx.b.op(grad, &[cx.args[0], cx.args[1], g])), None]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let (logits, labels) = (args[0], args[1]);
        let rows = &results[0];
        let max = logits.fold(rows, f64::NEG_INFINITY, f64::max);
        let sum = Array::zip(&logits.ty, &[logits, &max], |v| libm::exp(v[0] - v[1])).fold(rows, 0.0, |a, b| a + b);
        let p = logits.ty.position(&self.dim).unwrap_or(0);
        let (classes, step) = (logits.ty.dims[p].size, logits.ty.strides()[p]);
        let loss = labels.data.iter().enumerate().map(|(row, &label)| {
            if label == self.ignore as f64 {
                0.0
            } else if label >= 0.0 && label < classes as f64 {
                // Rows are counted in order: those before the dim, then those after it.
                let at = row / step * step * classes + label as usize * step + row % step;
                libm::log(sum.data[row]) + max.data[row] - logits.data[at]
            } else {
                f64::NAN
            }
        });
        smallvec![Array::new(rows.clone(), loss.collect())]
    }

    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let dtype = wide(b.ty(args[0]).dtype);
        let logits = b.cast(args[0], dtype);
        let (hot, ignored) = self.masks(b, logits, args[1]);
        let (_, sum, max) = Softmax::parts(b, logits, &self.dim);
        let log = b.op(Log {}, &[sum]);
        let lse = b.add(log, max);
        let zero = b.constant(0.0, dtype);
        let picked = b.op(Select {}, &[hot, logits, zero]);
        let picked = b.reduce_sum(picked, std::slice::from_ref(&self.dim));
        let loss = b.sub(lse, picked);
        Some(smallvec![b.op(Select {}, &[ignored, zero, loss])])
    }
}
