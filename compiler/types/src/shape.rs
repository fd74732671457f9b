//! Tensor types: an element type and named dims with static sizes, `f32[B:1, L:1560, DIM:512]`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{DType, Name};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dim {
    pub name: Name,
    pub size: usize,
}

impl Dim {
    pub fn new(name: impl Into<Name>, size: usize) -> Self {
        Self { name: name.into(), size }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.size)
    }
}

/// Row-major: the last dim is contiguous. Dim names within one type are distinct.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TensorType {
    pub dtype: DType,
    pub dims: SmallVec<[Dim; 4]>,
}

impl TensorType {
    pub fn new(dtype: DType, dims: impl IntoIterator<Item = Dim>) -> Self {
        Self { dtype, dims: dims.into_iter().collect() }
    }

    pub fn scalar(dtype: DType) -> Self {
        Self { dtype, dims: SmallVec::new() }
    }

    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// Saturates, so that absurd sizes are compared and refused rather than wrapped around.
    pub fn elements(&self) -> usize {
        self.dims.iter().fold(1, |n, d| n.saturating_mul(d.size))
    }

    pub fn bytes(&self) -> usize {
        self.elements().saturating_mul(self.dtype.bytes())
    }

    /// Position of the dim called `name`.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.dims.iter().position(|d| d.name == *name)
    }

    pub fn size_of(&self, name: &str) -> Option<usize> {
        self.position(name).map(|i| self.dims[i].size)
    }

    pub fn sizes(&self) -> SmallVec<[usize; 4]> {
        self.dims.iter().map(|d| d.size).collect()
    }

    /// Elements between neighbours along each dim. Saturates like [`TensorType::elements`].
    pub fn strides(&self) -> SmallVec<[usize; 4]> {
        let mut strides: SmallVec<[usize; 4]> = SmallVec::from_elem(1, self.rank());
        for i in (0..self.rank().saturating_sub(1)).rev() {
            strides[i] = strides[i + 1].saturating_mul(self.dims[i + 1].size);
        }
        strides
    }

    pub fn with_dtype(&self, dtype: DType) -> Self {
        Self { dtype, dims: self.dims.clone() }
    }

    /// The same dims without those named.
    pub fn without(&self, names: &[Name]) -> Self {
        Self::new(self.dtype, self.dims.iter().filter(|d| !names.contains(&d.name)).cloned())
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, dim) in self.dims.iter().enumerate() {
            write!(f, "{}{dim}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str("]")
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is no tensor type: {reason}; expected a form like `f32[B:1, L:1560]`")]
pub struct TypeParseError {
    text: String,
    reason: String,
}

impl FromStr for TensorType {
    type Err = TypeParseError;
    fn from_str(text: &str) -> Result<Self, TypeParseError> {
        let fail = |reason: &str| TypeParseError { text: text.into(), reason: reason.into() };
        let (dtype, rest) = text.trim().split_once('[').ok_or_else(|| fail("no `[`"))?;
        let dtype = dtype.parse().map_err(|e: String| fail(&e))?;
        let body = rest.strip_suffix(']').ok_or_else(|| fail("no `]` at the end"))?.trim();
        let mut dims: SmallVec<[Dim; 4]> = SmallVec::new();
        for part in body.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (name, size) = part.split_once(':').ok_or_else(|| fail("a dim without `:size`"))?;
            let size = size.trim().parse().map_err(|_| fail("a size that is no whole number"))?;
            let name = name.trim();
            if dims.iter().any(|d| d.name == *name) {
                return Err(fail("a dim named twice"));
            }
            dims.push(Dim::new(name, size));
        }
        Ok(Self { dtype, dims })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_reads_back() {
        for text in ["f32[]", "bf16[B:1, L:32760, DIM:5120]", "i64[DIM.out:4]"] {
            assert_eq!(text.parse::<TensorType>().expect(text).to_string(), text);
        }
        assert!("f32[B]".parse::<TensorType>().is_err());
        assert!("f32[B:1, B:2]".parse::<TensorType>().is_err());
    }

    #[test]
    fn strides_are_row_major() {
        let ty: TensorType = "f32[A:2, B:3, C:4]".parse().expect("a type");
        assert_eq!(ty.strides().as_slice(), &[12, 4, 1]);
    }
}
