//! Elements in memory as the numbers they stand for.

use half::{bf16, f16};
use types::DType;

pub fn encode(dtype: DType, numbers: &[f64], to: &mut [u8]) {
    for (v, out) in numbers.iter().zip(to.chunks_exact_mut(dtype.bytes())) {
        match dtype {
            DType::F64 => out.copy_from_slice(&v.to_le_bytes()),
            DType::F32 | DType::Work => out.copy_from_slice(&(*v as f32).to_le_bytes()),
            DType::BF16 => out.copy_from_slice(&bf16::from_f64(*v).to_le_bytes()),
            DType::F16 => out.copy_from_slice(&f16::from_f64(*v).to_le_bytes()),
            DType::I64 => out.copy_from_slice(&(*v as i64).to_le_bytes()),
            DType::I32 => out.copy_from_slice(&(*v as i32).to_le_bytes()),
            DType::Bool => out[0] = u8::from(*v != 0.0),
        }
    }
}

pub fn decode(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    let n = dtype.bytes();
    let first = |b: &[u8]| -> [u8; 8] { std::array::from_fn(|i| b.get(i).copied().unwrap_or(0)) };
    let value = |b: &[u8]| {
        let [b0, b1, b2, b3, ..] = first(b);
        match dtype {
            DType::F64 => f64::from_le_bytes(first(b)),
            DType::F32 | DType::Work => f64::from(f32::from_le_bytes([b0, b1, b2, b3])),
            DType::BF16 => bf16::from_le_bytes([b0, b1]).to_f64(),
            DType::F16 => f16::from_le_bytes([b0, b1]).to_f64(),
            DType::I64 => i64::from_le_bytes(first(b)) as f64,
            DType::I32 => f64::from(i32::from_le_bytes([b0, b1, b2, b3])),
            DType::Bool => f64::from(b0),
        }
    };
    bytes.chunks_exact(n).map(value).collect()
}
