//! Modules: what holds parameters. A struct's fields name them as the checkpoint does.

use std::ops::{Deref, Range};

use crate::{DType, Init, Size, Tensor};

/// Derived for structs of modules and parameters. A field's name is its part of the parameter's name, unless
/// `#[name = ".."]` gives another; `#[alias = ".."]` gives the original release's.
pub trait Module: Sized {
    /// Gives this module another name than its field's; an empty one leaves no trace in the path.
    #[must_use]
    fn named(self, _name: &str) -> Self {
        self
    }
}

/// A parameter. Used as a tensor, it comes in the working type.
#[derive(Clone, Copy, Debug)]
pub struct Param(Tensor);

impl Param {
    pub fn normal<const N: usize>(_dims: [Size; N], _std: f64) -> Param {
        Param(Tensor)
    }

    pub fn uniform<const N: usize>(_dims: [Size; N], _range: Range<f64>) -> Param {
        Param(Tensor)
    }

    pub fn zeros<const N: usize>(_dims: [Size; N]) -> Param {
        Param(Tensor)
    }

    pub fn ones<const N: usize>(_dims: [Size; N]) -> Param {
        Param(Tensor)
    }
}

impl Deref for Param {
    type Target = Tensor;
    fn deref(&self) -> &Tensor {
        &self.0
    }
}

/// Methods that return the same module with another option of its parameters.
macro_rules! with_options {
    ($($ty:ty),*) => {
        $(impl $ty {
            /// Used in this type instead of the working type.
            #[must_use]
            pub fn keep(self, _dtype: DType) -> Self { self }

            /// Not trained.
            #[must_use]
            pub fn frozen(self) -> Self { self }

            /// How the weight begins.
            #[must_use]
            pub fn init(self, _init: Init) -> Self { self }

            /// The weight's second name; the checkpoint may hold either.
            #[must_use]
            pub fn tied_to(self, _name: &str) -> Self { self }

            /// The class saves the weight in another form: in a tensor of this name beside the field, with these axes.
            /// `experts.{EXPERTS}.weight` is one tensor for each index of the axis that is left out.
            #[must_use]
            pub fn saved_as<const N: usize>(self, _name: &str, _axes: [Size; N]) -> Self { self }

            /// Files may hold the weight in this form, too.
            #[must_use]
            pub fn read_as<const N: usize>(self, _name: &str, _axes: [Size; N]) -> Self { self }
        })*
    };
}

macro_rules! layers {
    ($($(#[$doc:meta])* $ty:ident $(: $field:ident)?),*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug)]
            pub struct $ty { pub weight: Param, $(pub $field: Param)? }

            impl Module for $ty {}

            impl $ty {
                pub fn forward(&self, x: Tensor) -> Tensor { x }
            }
        )*
    };
}

with_options!(Param, Linear, LayerNorm, RmsNorm, Embedding);

layers!(
    /// `x weight + bias`, over the axis it was made for.
    Linear,
    /// Mean 0 and variance 1 in f32, times weight, plus bias.
    LayerNorm : bias,
    /// Root mean square 1 in f32, times weight.
    RmsNorm,
    /// Rows of a table, in the working type.
    Embedding
);

impl Linear {
    #[must_use]
    pub fn no_bias(self) -> Linear {
        self
    }
}

impl RmsNorm {
    /// Rounds to the operand's type before the product with the weight, as transformers does; PyTorch rounds after it.
    #[must_use]
    pub fn rounded_first(self) -> RmsNorm {
        self
    }

    /// Times 1 + weight; the weight begins as 0.
    #[must_use]
    pub fn plus_one(self) -> RmsNorm {
        self
    }
}

/// A linear layer from one axis to another; its weight is [TO, FROM], or [DIM.out, DIM.in].
pub fn linear(_from: Size, _to: Size) -> Linear {
    Linear { weight: Param(Tensor) }
}

pub fn layer_norm(_dim: Size, _eps: f64) -> LayerNorm {
    LayerNorm { weight: Param(Tensor), bias: Param(Tensor) }
}

pub fn rms_norm(_dim: Size, _eps: f64) -> RmsNorm {
    RmsNorm { weight: Param(Tensor) }
}

/// A table of this many rows; `forward` reads the rows of its ids.
pub fn embedding(_rows: Size, _dim: Size) -> Embedding {
    Embedding { weight: Param(Tensor) }
}
