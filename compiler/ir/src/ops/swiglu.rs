//! `swiglu`: silu(gate) up, the gated unit without its projections (Shazeer, 2020).

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::elementwise::{FUNCTION, QUOTIENT, alike_float, wide};
use super::{Sigmoid, SwigluGrad};
use crate::op::{Class, NodeIds, Semantics, Types, Vjp};
use crate::{Array, Builder, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Swiglu {}

impl Semantics for Swiglu {
    const NAME: &'static str = "swiglu";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        alike_float(args, 2, Self::NAME)
    }

    fn flops(&self, _: &[&TensorType], results: &[TensorType]) -> u64 {
        5 * results[0].elements() as u64
    }

    fn vector_ops(&self, _: &[&TensorType], results: &[TensorType]) -> u64 {
        (FUNCTION + QUOTIENT + 4) * results[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let g = cx.cotangent();
        let both = cx.b.op(SwigluGrad {}, &[cx.args[0], cx.args[1], g]);
        let both = cx.b.results(both);
        smallvec![both.first().copied(), both.get(1).copied()]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |x| x[0] / (1.0 + libm::exp(-x[0])) * x[1])]
    }

    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let dtype = b.ty(args[0]).dtype;
        let gate = b.cast(args[0], wide(dtype));
        let up = b.cast(args[1], wide(dtype));
        let s = b.op(Sigmoid {}, &[gate]);
        let silu = b.mul(gate, s);
        let y = b.mul(silu, up);
        Some(smallvec![b.cast(y, dtype)])
    }
}
