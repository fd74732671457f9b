//! Element types of tensors, and how a real number rounds to each.

use std::fmt;
use std::str::FromStr;

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// The model's working type, before the precision pass decides between f32 and bf16. Never reaches a plan.
    Work,
    /// Compile-time tables only; a target need not know it.
    F64,
    F32,
    BF16,
    F16,
    I64,
    I32,
    /// One byte, 0 or 1.
    Bool,
}

impl DType {
    pub const ALL: [DType; 8] =
        [DType::Work, DType::F64, DType::F32, DType::BF16, DType::F16, DType::I64, DType::I32, DType::Bool];

    /// Bytes of one element. `Work` counts as f32, its widest choice.
    pub const fn bytes(self) -> usize {
        match self {
            DType::F64 | DType::I64 => 8,
            DType::Work | DType::F32 | DType::I32 => 4,
            DType::BF16 | DType::F16 => 2,
            DType::Bool => 1,
        }
    }

    pub const fn is_float(self) -> bool {
        matches!(self, DType::Work | DType::F64 | DType::F32 | DType::BF16 | DType::F16)
    }

    pub const fn name(self) -> &'static str {
        match self {
            DType::Work => "work",
            DType::F64 => "f64",
            DType::F32 => "f32",
            DType::BF16 => "bf16",
            DType::F16 => "f16",
            DType::I64 => "i64",
            DType::I32 => "i32",
            DType::Bool => "bool",
        }
    }

    /// `value` as this type would store it: round to nearest even for floats, truncation for integers.
    pub fn round(self, value: f64) -> f64 {
        match self {
            DType::F64 => value,
            DType::Work | DType::F32 => f64::from(value as f32),
            // Through f32, as hardware converts: bf16 values come from f32 registers.
            DType::BF16 => bf16::from_f32(value as f32).to_f64(),
            DType::F16 => f16::from_f32(value as f32).to_f64(),
            DType::I64 => value.trunc(),
            DType::I32 => f64::from(value as i32),
            DType::Bool => f64::from(u8::from(value != 0.0)),
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DType {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        DType::ALL.into_iter().find(|d| d.name() == text).ok_or_else(|| {
            format!("`{text}` is no element type; there are work, f64, f32, bf16, f16, i64, i32 and bool")
        })
    }
}
