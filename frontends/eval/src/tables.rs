//! Tables: floating numbers that are known at compile time, computed here instead of at run time.
//!
//! Whole numbers and repetitions are cheap to make at run time, so only floating tables are folded, and `broadcast`
//! never is: a table has the size of what it was computed from, axis by axis.

use diag::{Diagnostic, Span};
use ir::ops::Table;
use ir::{Array, Builder, NodeId, Op};
use types::{DType, TensorType};

use crate::value::{Operand, Source};

/// Larger tables of f32 are quicker to compute than to carry in the plan; what is f64, or made of it, has to be folded.
const MAX_F32_BYTES: usize = 64 << 10;

/// The result of an operator on constants, each step rounded to its type; `None` if it is left to run time.
pub fn fold(op: &Op, operands: &[Operand<'_>], results: &[TensorType]) -> Option<Array> {
    let [ty] = results else { return None };
    let wide = ty.dtype == DType::F64 || operands.iter().any(|o| o.leaf.tensor().dtype == DType::F64);
    let folds = matches!(ty.dtype, DType::F32 | DType::F64)
        && ty.bytes() <= if wide { Table::MAX_BYTES } else { MAX_F32_BYTES }
        && !matches!(op, Op::Broadcast(_));
    if !folds {
        return None;
    }
    let mut arrays = vec![];
    for operand in operands {
        let Source::Const(array) = &operand.leaf.source else { return None };
        arrays.push(&**array);
    }
    let mut array = op.eval(&arrays, results).into_iter().next()?;
    for v in &mut array.data {
        *v = ty.dtype.round(*v);
    }
    Some(array)
}

/// One number as an operand of type `dtype`.
pub fn scalar(value: f64, dtype: DType) -> Array {
    Array::scalar(TensorType::scalar(dtype), dtype.round(value))
}

/// `made` is where elements that are no numbers came up.
pub fn record(b: &mut Builder, array: &Array, span: Span, made: Option<Span>) -> Result<NodeId, Diagnostic> {
    if array.ty.dtype == DType::F64 {
        return Err(Diagnostic::error("f64 is for tables that are computed at compile time")
            .at(span, format!("this `{}` would be computed at run time", array.ty))
            .help("cast it to f32 first"));
    }
    let Array { ty, data } = array;
    if let Some(at) = data.iter().position(|x| x.is_nan()) {
        let error = Diagnostic::error(format!("element {at} of a table `{ty}` is NaN")).at(span, "used here");
        let error = made.into_iter().fold(error, |error, made| error.at(made, "NaN comes from here"));
        return Err(error
            .help("a setting is outside of what this formula takes: a divisor of 0, or a root or logarithm of less"));
    }
    Ok(match ty.rank() {
        0 => b.constant(data[0], ty.dtype),
        _ => b.op(Table { dims: ty.dims.to_vec(), dtype: ty.dtype, data: data.clone() }, &[]),
    })
}
