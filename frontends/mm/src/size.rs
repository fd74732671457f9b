//! Sizes: the dims of a model and whole numbers computed from them.

use std::ops::{Add, Div, Mul, Range, RangeFrom, RangeTo, Rem, Sub};

/// A named axis and its length, or a whole number computed from some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size;

impl Size {
    /// As a real number.
    pub fn f64(self) -> f64 {
        1.0
    }

    pub fn sqrt(self) -> f64 {
        1.0
    }

    /// One over the square root.
    pub fn rsqrt(self) -> f64 {
        1.0
    }

    /// Divided and rounded up.
    #[must_use]
    pub fn div_ceil(self, _by: impl Into<Size>) -> Size {
        self
    }

    #[must_use]
    pub fn at_least(self, _other: impl Into<Size>) -> Size {
        self
    }

    #[must_use]
    pub fn at_most(self, _other: impl Into<Size>) -> Size {
        self
    }

    /// In a file's tensor, this axis as a part of one of `_of` elements, beginning at `_at`.
    #[must_use]
    pub fn within(self, _at: impl Into<Size>, _of: impl Into<Size>) -> Size {
        self
    }

    /// 0, 1, ... below it, to loop over.
    pub fn range(self) -> Range<i64> {
        0..1
    }
}

impl From<i64> for Size {
    fn from(_: i64) -> Self {
        Size
    }
}

impl PartialEq<i64> for Size {
    fn eq(&self, _: &i64) -> bool {
        true
    }
}

impl PartialOrd<i64> for Size {
    fn partial_cmp(&self, _: &i64) -> Option<std::cmp::Ordering> {
        None
    }
}

macro_rules! whole {
    ($($Op:ident $op:ident),*) => {
        $(
            impl $Op for Size {
                type Output = Size;
                fn $op(self, _: Size) -> Size { Size }
            }
            impl $Op<i64> for Size {
                type Output = Size;
                fn $op(self, _: i64) -> Size { Size }
            }
            impl $Op<Size> for i64 {
                type Output = Size;
                fn $op(self, _: Size) -> Size { Size }
            }
        )*
    };
}

whole!(Add add, Sub sub, Mul mul, Div div, Rem rem);

/// A part of an axis: `1..3`, `1..`, `..N`.
pub trait Part {}

impl Part for Range<i64> {}
impl Part for RangeFrom<i64> {}
impl Part for RangeTo<i64> {}
impl Part for Range<Size> {}
impl Part for RangeFrom<Size> {}
impl Part for RangeTo<Size> {}
