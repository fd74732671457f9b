//! `log1p`: the natural logarithm of each element plus one, exact near 0 (after Kahan).

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::compare::Comparison;
use super::elementwise::{FUNCTION, QUOTIENT, unary_float, wide};
use super::{Compare, Log, Select};
use crate::op::{Class, NodeIds, Semantics, Types, Vjp};
use crate::{Array, Builder, Mismatch, NodeId};

/// From here on one is lost beside the element, or near it.
const LARGE: f64 = 1e6;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Log1p {}

impl Semantics for Log1p {
    const NAME: &'static str = "log1p";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        unary_float(args, Self::NAME)
    }

    fn flops(&self, _: &[&TensorType], results: &[TensorType]) -> u64 {
        5 * results[0].elements() as u64
    }

    fn vector_ops(&self, _: &[&TensorType], results: &[TensorType]) -> u64 {
        (FUNCTION + QUOTIENT + 6) * results[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let g = cx.cotangent();
        let below = cx.b.offset(cx.args[0], 1.0);
        smallvec![Some(cx.b.div(g, below))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |x| libm::log1p(x[0]))]
    }

    /// With u = 1 + x, the errors of u and of log u cancel in log u times x / (u - 1).
    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let dtype = b.ty(args[0]).dtype;
        let x = b.cast(args[0], wide(dtype));
        let (one, large) = (b.constant(1.0, wide(dtype)), b.constant(LARGE, wide(dtype)));
        let u = b.add(x, one);
        let log = b.op(Log {}, &[u]);
        let step = b.sub(u, one);
        let ratio = b.div(x, step);
        let exact = b.mul(log, ratio);
        let is_small = b.op(Compare { kind: Comparison::Less }, &[x, large]);
        let y = b.op(Select {}, &[is_small, exact, log]);
        let is_lost = b.op(Compare { kind: Comparison::Equal }, &[u, one]);
        let y = b.op(Select {}, &[is_lost, x, y]);
        Some(smallvec![b.cast(y, dtype)])
    }
}
