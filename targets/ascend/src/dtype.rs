//! Element types as CANN numbers and names them, and sets of them.

use types::DType;

pub use crate::proto::DataType;

impl DataType {
    /// The types that mmc can ever put into a graph; tables and checks speak of these alone.
    pub const KNOWN: [DataType; 9] = [
        DataType::Float,
        DataType::Float16,
        DataType::Bf16,
        DataType::Double,
        DataType::Int8,
        DataType::Uint8,
        DataType::Int32,
        DataType::Int64,
        DataType::Bool,
    ];

    /// `None` for the working type, which no plan has.
    pub fn of(dtype: DType) -> Option<DataType> {
        Some(match dtype {
            DType::Work => return None,
            DType::F64 => DataType::Double,
            DType::F32 => DataType::Float,
            DType::BF16 => DataType::Bf16,
            DType::F16 => DataType::Float16,
            DType::I64 => DataType::Int64,
            DType::I32 => DataType::Int32,
            DType::Bool => DataType::Bool,
        })
    }

    /// The number in the C++ enum `ge::DataType`, which attributes such as `dst_type` hold; the protobuf enum counts otherwise.
    pub fn in_attributes(self) -> i64 {
        match self {
            DataType::Float => 0,
            DataType::Float16 => 1,
            DataType::Int8 => 2,
            DataType::Int32 => 3,
            DataType::Uint8 => 4,
            DataType::Int64 => 9,
            DataType::Double => 11,
            DataType::Bool => 12,
            DataType::Bf16 => 27,
            DataType::Undefined => 28,
        }
    }

    pub fn bytes(self) -> u64 {
        match self {
            DataType::Undefined => 0,
            DataType::Int8 | DataType::Uint8 | DataType::Bool => 1,
            DataType::Float16 | DataType::Bf16 => 2,
            DataType::Float | DataType::Int32 => 4,
            DataType::Double | DataType::Int64 => 8,
        }
    }

    /// As REG_OP spells it.
    pub fn text(self) -> &'static str {
        match self {
            DataType::Undefined => "DT_UNDEFINED",
            DataType::Float => "DT_FLOAT",
            DataType::Float16 => "DT_FLOAT16",
            DataType::Bf16 => "DT_BF16",
            DataType::Double => "DT_DOUBLE",
            DataType::Int8 => "DT_INT8",
            DataType::Uint8 => "DT_UINT8",
            DataType::Int32 => "DT_INT32",
            DataType::Int64 => "DT_INT64",
            DataType::Bool => "DT_BOOL",
        }
    }

    /// Sixteen bits of floating point: what a sum is not kept in.
    pub fn is_half(self) -> bool {
        matches!(self, DataType::Float16 | DataType::Bf16)
    }
}

/// A set of element types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Types(u32);

impl Types {
    pub const fn of(types: &[DataType]) -> Self {
        let (mut bits, mut i) = (0, 0);
        while i < types.len() {
            bits |= 1 << types[i] as u32;
            i += 1;
        }
        Self(bits)
    }

    pub const fn and(self, other: Types) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn has(self, dtype: DataType) -> bool {
        self.0 & (1 << dtype as u32) != 0
    }

    pub fn texts(self) -> Vec<&'static str> {
        DataType::KNOWN.into_iter().filter(|t| self.has(*t)).map(DataType::text).collect()
    }
}

/// A tensor's element type and sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ty {
    pub dtype: DataType,
    pub shape: Vec<i64>,
}

impl Ty {
    pub fn new(dtype: DataType, shape: impl Into<Vec<i64>>) -> Self {
        Self { dtype, shape: shape.into() }
    }

    pub fn elements(&self) -> i64 {
        self.shape.iter().product()
    }

    pub fn bytes(&self) -> u64 {
        self.elements().max(0) as u64 * self.dtype.bytes()
    }
}

impl std::fmt::Display for Ty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}", self.dtype.text(), self.shape)
    }
}
