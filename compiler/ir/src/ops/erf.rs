//! `erf`: the error function of each element, 2 / sqrt(pi) times the integral of e^(-t^2) from 0.

use std::f64::consts::FRAC_2_SQRT_PI;

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::elementwise::{FUNCTION, unary_float};
use super::Exp;
use crate::op::{Class, Semantics, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Erf {}

impl Semantics for Erf {
    const NAME: &'static str = "erf";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        unary_float(args, Self::NAME)
    }

    fn vector_ops(&self, _: &[&TensorType], results: &[TensorType]) -> u64 {
        2 * FUNCTION * results[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        // d erf(x) / dx = 2 / sqrt(pi) e^(-x^2)
        let (x, g) = (cx.args[0], cx.cotangent());
        let square = cx.b.mul(x, x);
        let minus = cx.b.neg(square);
        let bell = cx.b.op(Exp {}, &[minus]);
        let d = cx.b.scale(bell, FRAC_2_SQRT_PI);
        smallvec![Some(cx.b.mul(g, d))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |x| libm::erf(x[0]))]
    }
}
