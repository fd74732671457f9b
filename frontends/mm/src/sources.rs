//! Tensors from nowhere: counts, constants and random draws.

use std::ops::Range;

use crate::{DType, Operand, Size, Tensor};

/// How a parameter begins.
#[derive(Clone, Copy, Debug)]
pub struct Init;

/// A distribution, and the axes of the tensor to draw.
#[derive(Clone, Copy, Debug)]
pub struct Random;

/// 0, 1, 2 ... along an axis.
pub fn iota(_dim: Size, _dtype: DType) -> Tensor {
    Tensor
}

/// `base` to the power of each element of a table.
pub fn powers(_base: f64, exponents: Tensor) -> Tensor {
    exponents
}

/// One number as a tensor without axes.
pub fn constant(_value: impl Operand, _dtype: DType) -> Tensor {
    Tensor
}

pub fn zeros<const N: usize>(_dims: [Size; N], _dtype: DType) -> Tensor {
    Tensor
}

/// Normal numbers with this standard deviation.
pub fn normal(_std: f64) -> Init {
    Init
}

pub fn uniform<const N: usize>(_dims: [Size; N], _range: Range<f64>) -> Random {
    Random
}

/// Standard normal numbers, as many as the tensor has.
pub fn normal_like(_x: Tensor) -> Random {
    Random
}

/// Random numbers in f32, drawn anew at each step; an input of the program that may be given instead.
pub fn draw(_name: &str, _random: Random) -> Tensor {
    Tensor
}
