//! `silu`: x / (1 + e^-x), also called swish (Elfwing et al., 2017).

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::elementwise::{FUNCTION, QUOTIENT, unary_float, wide};
use super::{Sigmoid, SiluGrad};
use crate::op::{Class, NodeIds, Semantics, Types, Vjp};
use crate::{Array, Builder, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Silu {}

impl Semantics for Silu {
    const NAME: &'static str = "silu";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        unary_float(args, Self::NAME)
    }

    fn flops(&self, _: &[&TensorType], results: &[TensorType]) -> u64 {
        4 * results[0].elements() as u64
    }

    fn vector_ops(&self, _: &[&TensorType], results: &[TensorType]) -> u64 {
        (FUNCTION + QUOTIENT + 3) * results[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let g = cx.cotangent();
        smallvec![Some(cx.b.op(SiluGrad {}, &[cx.args[0], g]))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |x| x[0] / (1.0 + libm::exp(-x[0])))]
    }

    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let dtype = b.ty(args[0]).dtype;
        let x = b.cast(args[0], wide(dtype));
        let gate = b.op(Sigmoid {}, &[x]);
        let y = b.mul(x, gate);
        Some(smallvec![b.cast(y, dtype)])
    }
}
