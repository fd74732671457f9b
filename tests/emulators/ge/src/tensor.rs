//! Tensors of f64, and their bytes in the element types of graphs.

use half::{bf16, f16};

use crate::proto::DataType;

#[derive(Clone, Debug)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

impl DataType {
    pub fn bytes(self) -> usize {
        match self {
            DataType::Undefined => 0,
            DataType::Int8 | DataType::Uint8 | DataType::Bool => 1,
            DataType::Float16 | DataType::Bf16 => 2,
            DataType::Float | DataType::Int32 => 4,
            DataType::Double | DataType::Int64 => 8,
        }
    }

    /// The nearest value of this type.
    pub fn round(self, v: f64) -> f64 {
        match self {
            DataType::Float => f64::from(v as f32),
            DataType::Float16 => f16::from_f64(v).to_f64(),
            // By way of f32, as the hardware rounds what it accumulates.
            DataType::Bf16 => bf16::from_f32(v as f32).to_f64(),
            DataType::Int64 | DataType::Int32 | DataType::Int8 | DataType::Uint8 => v.trunc(),
            DataType::Bool => f64::from(u8::from(v != 0.0)),
            DataType::Double | DataType::Undefined => v,
        }
    }

    pub fn decode(self, bytes: &[u8]) -> Vec<f64> {
        macro_rules! all {
            ($ty:ty, $width:literal, $wide:expr) => {
                bytes.as_chunks::<$width>().0.iter().map(|b| $wide(<$ty>::from_le_bytes(*b))).collect()
            };
        }
        match self {
            DataType::Float => all!(f32, 4, f64::from),
            DataType::Float16 => all!(f16, 2, f16::to_f64),
            DataType::Bf16 => all!(bf16, 2, bf16::to_f64),
            DataType::Double => all!(f64, 8, |v| v),
            DataType::Int64 => all!(i64, 8, |v| v as f64),
            DataType::Int32 => all!(i32, 4, f64::from),
            DataType::Int8 => all!(i8, 1, f64::from),
            DataType::Uint8 => all!(u8, 1, f64::from),
            DataType::Bool => bytes.iter().map(|&b| f64::from(u8::from(b != 0))).collect(),
            DataType::Undefined => vec![],
        }
    }

    pub fn encode(self, values: &[f64], out: &mut [u8]) {
        macro_rules! all {
            ($width:literal, $narrow:expr) => {
                out.as_chunks_mut::<$width>().0.iter_mut().zip(values).for_each(|(b, &v)| *b = $narrow(v).to_le_bytes())
            };
        }
        match self {
            DataType::Float => all!(4, |v| v as f32),
            DataType::Float16 => all!(2, f16::from_f64),
            DataType::Bf16 => all!(2, |v| bf16::from_f32(v as f32)),
            DataType::Double => all!(8, |v: f64| v),
            DataType::Int64 => all!(8, |v| v as i64),
            DataType::Int32 => all!(4, |v| v as i32),
            DataType::Int8 => all!(1, |v| v as i8),
            DataType::Uint8 | DataType::Bool => all!(1, |v| v as u8),
            DataType::Undefined => {}
        }
    }
}

impl Tensor {
    pub(crate) fn index(&self, i: usize) -> Vec<usize> {
        unravel(&self.shape, i)
    }

    pub(crate) fn at(&self, index: &[usize]) -> f64 {
        self.data[ravel(&self.shape, index)]
    }

    /// The element that broadcasts to `index` of a tensor of a higher rank.
    pub(crate) fn spread(&self, index: &[usize]) -> f64 {
        let own = &index[index.len() - self.shape.len()..];
        let own: Vec<usize> = own.iter().zip(&self.shape).map(|(&i, &s)| if s == 1 { 0 } else { i }).collect();
        self.at(&own)
    }

    /// How far its elements lie apart along the dims of a tensor of rank `rank` to which it broadcasts.
    pub(crate) fn strides_in(&self, rank: usize) -> Vec<usize> {
        let mut strides = vec![0; rank];
        let mut step = 1;
        for (d, &size) in self.shape.iter().enumerate().rev() {
            strides[rank - self.shape.len() + d] = if size == 1 { 0 } else { step };
            step *= size;
        }
        strides
    }

    pub(crate) fn ints(&self) -> Vec<i64> {
        self.data.iter().map(|&v| v as i64).collect()
    }

    /// Rows along the last dim.
    pub(crate) fn rows(&self) -> std::slice::Chunks<'_, f64> {
        self.data.chunks(*self.shape.last().expect("a dim"))
    }
}

pub(crate) fn unravel(shape: &[usize], mut i: usize) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (d, &size) in shape.iter().enumerate().rev() {
        index[d] = i % size;
        i /= size;
    }
    index
}

pub(crate) fn ravel(shape: &[usize], index: &[usize]) -> usize {
    shape.iter().zip(index).fold(0, |at, (&size, &i)| at * size + i)
}
