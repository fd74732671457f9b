//! Conversion of raw little-endian elements from a file's type to the plan's.

use half::{bf16, f16};
use safetensors::Dtype;
use types::{DType, Indices};

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    #[error("{0:?} does not convert to {1}")]
    Types(Dtype, DType),
    #[error("element {0} does not fit into {1}")]
    Range(usize, DType),
    #[error("{0} bytes are not what the shape needs")]
    Size(usize),
}

/// The plan's name for a file's type, where it has one.
pub fn known(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::BF16 => DType::BF16,
        Dtype::F16 => DType::F16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::BOOL => DType::Bool,
        _ => return None,
    })
}

/// The file's name for a type of the plan.
pub fn stored(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::Work | DType::F32 => Dtype::F32,
        DType::BF16 => Dtype::BF16,
        DType::F16 => Dtype::F16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::Bool => Dtype::BOOL,
    }
}

/// Whether `convert` can do it at all: floats to floats, integers to integers.
pub fn converts(from: Dtype, to: DType) -> bool {
    known(from).is_some_and(|k| k.is_float() == to.is_float())
}

/// Writes the elements of `from` to `to`. Floats round to nearest even; an integer that does not fit is an error.
pub fn convert(from: Dtype, bytes: &[u8], to: DType, out: &mut [u8]) -> Result<(), ConvertError> {
    let kind = known(from).filter(|_| converts(from, to)).ok_or(ConvertError::Types(from, to))?;
    if bytes.len() / kind.bytes() != out.len() / to.bytes() || !bytes.len().is_multiple_of(kind.bytes()) {
        return Err(ConvertError::Size(bytes.len()));
    }
    if kind == to {
        out.copy_from_slice(bytes);
        return Ok(());
    }
    if kind.is_float() {
        match kind {
            DType::F64 => floats::<8>(bytes, to, out, |b| f64::from_le_bytes(b) as f32),
            DType::BF16 => floats::<2>(bytes, to, out, |b| bf16::from_le_bytes(b).to_f32()),
            DType::F16 => floats::<2>(bytes, to, out, |b| f16::from_le_bytes(b).to_f32()),
            _ => floats::<4>(bytes, to, out, f32::from_le_bytes),
        }
        return Ok(());
    }
    let read = |i: usize| match kind {
        DType::I64 => i64::from_le_bytes(piece(bytes, i)),
        DType::I32 => i64::from(i32::from_le_bytes(piece(bytes, i))),
        _ => i64::from(bytes[i] != 0),
    };
    for i in 0..out.len() / to.bytes() {
        let value = read(i);
        let range = ConvertError::Range(i, to);
        match to {
            DType::I64 => put(out, i, value.to_le_bytes()),
            DType::I32 => put(out, i, i32::try_from(value).map_err(|_| range)?.to_le_bytes()),
            _ => put(out, i, [u8::try_from(value).ok().filter(|v| *v <= 1).ok_or(range)?]),
        }
    }
    Ok(())
}

/// Like [`convert`], between types of the plan; buffers may be longer than their values.
pub fn convert_values(from: DType, bytes: &[u8], to: DType, out: &mut [u8]) -> Result<(), ConvertError> {
    let count = (bytes.len() / from.bytes()).min(out.len() / to.bytes());
    convert(stored(from), &bytes[..count * from.bytes()], to, &mut out[..count * to.bytes()])
}

/// The first element that is no index in range, with its number.
pub fn out_of_range(dtype: DType, bytes: &[u8], indices: Indices) -> Option<(usize, i64)> {
    let value = |i: usize| match dtype {
        DType::I32 => i64::from(i32::from_le_bytes(piece(bytes, i))),
        _ => i64::from_le_bytes(piece(bytes, i)),
    };
    (0..bytes.len() / dtype.bytes()).map(|i| (i, value(i))).find(|&(_, value)| !indices.admit(value))
}

/// Writes f32 values as elements of `to`; integers are truncated.
pub fn narrow(values: &[f32], to: DType, out: &mut [u8]) {
    let each = |f: &mut dyn FnMut(usize, f32)| values.iter().enumerate().for_each(|(i, v)| f(i, *v));
    match to {
        DType::F64 => each(&mut |i, v| put(out, i, f64::from(v).to_le_bytes())),
        DType::Work | DType::F32 => each(&mut |i, v| put(out, i, v.to_le_bytes())),
        DType::BF16 => each(&mut |i, v| put(out, i, bf16::from_f32(v).to_le_bytes())),
        DType::F16 => each(&mut |i, v| put(out, i, f16::from_f32(v).to_le_bytes())),
        DType::I64 => each(&mut |i, v| put(out, i, (v as i64).to_le_bytes())),
        DType::I32 => each(&mut |i, v| put(out, i, (v as i32).to_le_bytes())),
        DType::Bool => each(&mut |i, v| put(out, i, [u8::from(v != 0.0)])),
    }
}

/// The elements as f32, as `--outputs` writes them all.
pub fn widen(from: DType, bytes: &[u8], out: &mut Vec<f32>) {
    let count = bytes.len() / from.bytes();
    out.reserve(count);
    let each = |f: &dyn Fn(usize) -> f32, out: &mut Vec<f32>| out.extend((0..count).map(f));
    match from {
        DType::F64 => each(&|i| f64::from_le_bytes(piece(bytes, i)) as f32, out),
        DType::Work | DType::F32 => each(&|i| f32::from_le_bytes(piece(bytes, i)), out),
        DType::BF16 => each(&|i| bf16::from_le_bytes(piece(bytes, i)).to_f32(), out),
        DType::F16 => each(&|i| f16::from_le_bytes(piece(bytes, i)).to_f32(), out),
        DType::I64 => each(&|i| i64::from_le_bytes(piece(bytes, i)) as f32, out),
        DType::I32 => each(&|i| i32::from_le_bytes(piece(bytes, i)) as f32, out),
        DType::Bool => each(&|i| f32::from(bytes[i]), out),
    }
}

fn floats<const N: usize>(bytes: &[u8], to: DType, out: &mut [u8], read: impl Fn([u8; N]) -> f32) {
    let (from, _) = bytes.as_chunks::<N>();
    let values = from.iter().map(|b| read(*b)).enumerate();
    match to {
        DType::F64 if N == 8 => out.copy_from_slice(bytes),
        DType::F64 => values.for_each(|(i, v)| put(out, i, f64::from(v).to_le_bytes())),
        DType::BF16 => values.for_each(|(i, v)| put(out, i, bf16::from_f32(v).to_le_bytes())),
        DType::F16 => values.for_each(|(i, v)| put(out, i, f16::from_f32(v).to_le_bytes())),
        _ => values.for_each(|(i, v)| put(out, i, v.to_le_bytes())),
    }
}

fn piece<const N: usize>(bytes: &[u8], i: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[i * N..i * N + N]);
    out
}

fn put<const N: usize>(out: &mut [u8], i: usize, value: [u8; N]) {
    out[i * N..i * N + N].copy_from_slice(&value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[f32]) {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        for ty in [DType::F64, DType::F32, DType::BF16, DType::F16] {
            let mut there = vec![0; values.len() * ty.bytes()];
            convert(Dtype::F32, &bytes, ty, &mut there).expect("there");
            let mut narrowed = there.clone();
            narrow(values, ty, &mut narrowed);
            assert_eq!(there, narrowed);
            let mut back = vec![0; bytes.len()];
            convert(stored(ty), &there, DType::F32, &mut back).expect("back");
            let mut wide = Vec::new();
            widen(ty, &there, &mut wide);
            for ((value, back), wide) in values.iter().zip(back.chunks_exact(4)).zip(wide) {
                let back = f32::from_le_bytes(piece(back, 0));
                assert_eq!((f64::from(back), back), (ty.round(f64::from(*value)), wide), "{value} as {ty}");
            }
        }
    }

    #[test]
    fn floats_round_as_the_types_say() {
        check(&[0.0, -1.5, 1.0 / 3.0, 1e-3, 65504.0, 3.0e38, 1.0 + 1.0 / 256.0, f32::INFINITY]);
    }

    #[test]
    fn integers_do_not_wrap() {
        let bytes: Vec<u8> = [1i64, -7, 1 << 40].iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut out = [0; 12];
        assert_eq!(convert(Dtype::I64, &bytes, DType::I32, &mut out), Err(ConvertError::Range(2, DType::I32)));
        convert(Dtype::I64, &bytes[..16], DType::I32, &mut out[..8]).expect("fits");
        assert_eq!(out[..8], [1i32.to_le_bytes(), (-7i32).to_le_bytes()].concat());
        assert_eq!(
            convert(Dtype::F32, &bytes[..8], DType::I32, &mut out[..8]),
            Err(ConvertError::Types(Dtype::F32, DType::I32))
        );
        assert_eq!(convert(Dtype::I64, &bytes[..9], DType::I32, &mut out[..4]), Err(ConvertError::Size(9)));
    }
}
