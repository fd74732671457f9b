//! The types of emitted values: a scalar or a vector of one element type.

use std::fmt;

/// An element type, as MLIR spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Elem {
    I1,
    I8,
    I16,
    I32,
    I64,
    F16,
    Bf16,
    F32,
    F64,
    Ptr,
}

impl Elem {
    /// Bytes in memory.
    pub fn bytes(self) -> u64 {
        match self {
            Elem::I1 | Elem::I8 => 1,
            Elem::I16 | Elem::F16 | Elem::Bf16 => 2,
            Elem::I32 | Elem::F32 => 4,
            Elem::I64 | Elem::F64 | Elem::Ptr => 8,
        }
    }

    /// Bits of the value.
    pub fn bits(self) -> u64 {
        if self == Elem::I1 { 1 } else { self.bytes() * 8 }
    }

    pub fn is_float(self) -> bool {
        matches!(self, Elem::F16 | Elem::Bf16 | Elem::F32 | Elem::F64)
    }

    /// The integer of the same width.
    pub fn as_int(self) -> Elem {
        match self {
            Elem::F16 | Elem::Bf16 => Elem::I16,
            Elem::F32 => Elem::I32,
            Elem::F64 | Elem::Ptr => Elem::I64,
            int => int,
        }
    }
}

impl fmt::Display for Elem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Elem::I1 => "i1",
            Elem::I8 => "i8",
            Elem::I16 => "i16",
            Elem::I32 => "i32",
            Elem::I64 => "i64",
            Elem::F16 => "f16",
            Elem::Bf16 => "bf16",
            Elem::F32 => "f32",
            Elem::F64 => "f64",
            Elem::Ptr => "!llvm.ptr",
        })
    }
}

/// A scalar (`lanes == 0`) or a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ty {
    pub elem: Elem,
    pub lanes: u32,
}

impl Ty {
    pub const PTR: Ty = Ty::scalar(Elem::Ptr);
    pub const I64: Ty = Ty::scalar(Elem::I64);
    pub const I32: Ty = Ty::scalar(Elem::I32);
    pub const F32: Ty = Ty::scalar(Elem::F32);

    pub const fn scalar(elem: Elem) -> Ty {
        Ty { elem, lanes: 0 }
    }

    pub const fn vector(elem: Elem, lanes: u32) -> Ty {
        Ty { elem, lanes }
    }

    /// The same shape with another element.
    pub const fn with(self, elem: Elem) -> Ty {
        Ty { elem, lanes: self.lanes }
    }

    pub const fn is_vector(self) -> bool {
        self.lanes > 0
    }
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lanes {
            0 => write!(f, "{}", self.elem),
            lanes => write!(f, "vector<{lanes}x{}>", self.elem),
        }
    }
}
