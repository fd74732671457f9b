//! Arithmetic of tensors, parameters and numbers: dims meet by name, and the working type meets f32 in f32.

use std::ops::{Add, Div, Mul, Neg, Not, Sub};

use crate::{Param, Size, Tensor};

/// What stands beside a tensor: another, a parameter, or a number.
pub trait Operand {}

impl Operand for Tensor {}
impl Operand for Param {}
impl Operand for f64 {}
impl Operand for i64 {}
impl Operand for Size {}

macro_rules! arithmetic {
    ($($Op:ident $op:ident),*) => {
        $(
            impl<T: Operand> $Op<T> for Tensor {
                type Output = Tensor;
                fn $op(self, _: T) -> Tensor { Tensor }
            }
            impl<T: Operand> $Op<T> for Param {
                type Output = Tensor;
                fn $op(self, _: T) -> Tensor { Tensor }
            }
            impl $Op<Tensor> for f64 {
                type Output = Tensor;
                fn $op(self, _: Tensor) -> Tensor { Tensor }
            }
            impl $Op<Tensor> for i64 {
                type Output = Tensor;
                fn $op(self, _: Tensor) -> Tensor { Tensor }
            }
        )*
    };
}

arithmetic!(Add add, Sub sub, Mul mul, Div div);

macro_rules! assignment {
    ($($Op:ident $op:ident),*) => {
        $(impl<T: Operand> std::ops::$Op<T> for Tensor {
            fn $op(&mut self, _: T) {}
        })*
    };
}

assignment!(AddAssign add_assign, SubAssign sub_assign, MulAssign mul_assign, DivAssign div_assign);

/// False where this is true.
impl Not for Tensor {
    type Output = Tensor;
    fn not(self) -> Tensor {
        self
    }
}

impl Neg for Tensor {
    type Output = Tensor;
    fn neg(self) -> Tensor {
        self
    }
}
