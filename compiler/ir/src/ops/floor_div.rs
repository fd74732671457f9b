//! `floor_div`: the quotient of two whole numbers, rounded down, broadcast by name; 0 where the divisor is 0.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{DType, TensorType};

use super::elementwise::{QUOTIENT, arity, same_dtype};
use crate::op::{Class, Semantics, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FloorDiv {}

impl Semantics for FloorDiv {
    const NAME: &'static str = "floor_div";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        whole(args, Self::NAME)
    }

    /// Units for vectors divide no whole numbers.
    fn vector_ops(&self, _: &[&TensorType], results: &[TensorType]) -> u64 {
        4 * QUOTIENT * results[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.none()
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![integers(args, &results[0], |a, b| {
            let (q, r) = (a.wrapping_div(b), a.wrapping_rem(b));
            q.wrapping_sub(i64::from(r != 0 && (r < 0) != (b < 0)))
        })]
    }
}

/// Two operands of one type of whole numbers.
pub(super) fn whole(args: &[&TensorType], name: &str) -> Result<Types, Mismatch> {
    arity(args, 2, name)?;
    let types = same_dtype(args, name)?;
    if !matches!(types[0].dtype, DType::I64 | DType::I32) {
        return Err(Mismatch::new(format!("`{name}` of {}", types[0].dtype))
            .of([0, 1])
            .help("cast both to i64 or i32 first"));
    }
    Ok(types)
}

/// Elementwise on whole numbers; 0 where the second is 0.
pub(super) fn integers(args: &[&Array], ty: &TensorType, f: impl Fn(i64, i64) -> i64) -> Array {
    Array::zip(ty, args, |x| {
        let (a, b) = (x[0] as i64, x[1] as i64);
        let value = if b == 0 { 0 } else { f(a, b) };
        if ty.dtype == DType::I32 { f64::from(value as i32) } else { value as f64 }
    })
}
