//! Formulas over rows: each row along one dim is computed from itself as a whole.

use types::{Name, TensorType};

use super::elementwise::alike_float;
use crate::array::{dot, for_each_index};
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

/// Calls `f` for each row along `dim`, in the order of the other dims, with the places of its elements.
pub fn for_each(ty: &TensorType, dim: &Name, mut f: impl FnMut(RowPlaces)) {
    let p = ty.position(dim).unwrap_or(0);
    let (strides, mut sizes) = (ty.strides(), ty.sizes());
    let (count, step) = (std::mem::replace(&mut sizes[p], 1), strides[p]);
    for_each_index(&sizes, |index| {
        let start = dot(index, &strides);
        f((start..start + count * step).step_by(step));
    });
}

/// Where the elements of a row stand.
pub type RowPlaces = std::iter::StepBy<std::ops::Range<usize>>;
