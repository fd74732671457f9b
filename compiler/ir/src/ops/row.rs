//! Formulas over rows: each row along one dim is computed from itself as a whole.

use types::{Name, TensorType};

use super::elementwise::alike_float;
use crate::factors::FactorKind;
use crate::op::Types;
use crate::{Factors, Mismatch};

/// `count` operands of one type, which have the dim; the result is of that type too.
pub fn infer(args: &[&TensorType], count: usize, dim: &Name, name: &str) -> Result<Types, Mismatch> {
    let ty = alike_float(args, count, name)?;
    if args[0].position(dim).is_none() {
        return Err(Mismatch::new(format!("`{}` has no dim {dim} for `{name}`", args[0])).of([0]));
    }
    Ok(ty)
}

/// What is added to a variance: a finite number of 0 or more.
pub fn check_eps(eps: f64, name: &str) -> Result<(), Mismatch> {
    if (eps as f32).is_finite() && eps >= 0.0 {
        return Ok(());
    }
    Err(Mismatch::new(format!("`{name}` with an eps of {eps:?}")).help("give a finite eps of 0 or more"))
}

/// The dim is whole, all others are free.
pub fn factors(args: &[&TensorType], results: &[TensorType], dim: &Name) -> Factors {
    Factors::by_name(args, results).mark(&[dim], FactorKind::Whole)
}
