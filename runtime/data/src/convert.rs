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
    #[error("element {0} is not finite, or is too large for {1}")]
    Overflow(usize, DType),
    #[error("{0} bytes are not what the shape needs")]
    Size(usize),
}

/// What the elements of a file's type are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Float,
    Integer,
    Bool,
}

fn class(dtype: Dtype) -> Option<Class> {
    Some(match dtype {
        Dtype::F64 | Dtype::F32 | Dtype::BF16 | Dtype::F16 => Class::Float,
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => Class::Integer,
        Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => Class::Integer,
        Dtype::BOOL => Class::Bool,
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

/// Whether `convert` can do it at all: floats to floats, integers of any width to integers, and what is true or false
/// from either. Truth values are no integers.
pub fn converts(from: Dtype, to: DType) -> bool {
    match class(from) {
        Some(Class::Float) => to.is_float(),
        Some(Class::Integer) => !to.is_float(),
        Some(Class::Bool) => to == DType::Bool,
        None => false,
    }
}

/// Writes the elements of `from` to `to`. Floats round to nearest even; an integer that does not fit is an error.
pub fn convert(from: Dtype, bytes: &[u8], to: DType, out: &mut [u8]) -> Result<(), ConvertError> {
    if !converts(from, to) {
        return Err(ConvertError::Types(from, to));
    }
    let size = from.bitsize() / 8;
    if bytes.len() / size != out.len() / to.bytes() || !bytes.len().is_multiple_of(size) {
        return Err(ConvertError::Size(bytes.len()));
    }
    if from == stored(to) && to != DType::Bool {
        out.copy_from_slice(bytes);
        return Ok(());
    }
    match from {
        Dtype::F64 => floats::<8>(bytes, to, out, |b| f64::from_le_bytes(b) as f32),
        Dtype::F32 => floats::<4>(bytes, to, out, f32::from_le_bytes),
        Dtype::BF16 => floats::<2>(bytes, to, out, |b| bf16::from_le_bytes(b).to_f32()),
        Dtype::F16 => floats::<2>(bytes, to, out, |b| f16::from_le_bytes(b).to_f32()),
        Dtype::I8 => return integers::<1>(bytes, to, out, |b| Some(i64::from(i8::from_le_bytes(b)))),
        Dtype::I16 => return integers::<2>(bytes, to, out, |b| Some(i64::from(i16::from_le_bytes(b)))),
        Dtype::I32 => return integers::<4>(bytes, to, out, |b| Some(i64::from(i32::from_le_bytes(b)))),
        Dtype::I64 => return integers::<8>(bytes, to, out, |b| Some(i64::from_le_bytes(b))),
        Dtype::U16 => return integers::<2>(bytes, to, out, |b| Some(i64::from(u16::from_le_bytes(b)))),
        Dtype::U32 => return integers::<4>(bytes, to, out, |b| Some(i64::from(u32::from_le_bytes(b)))),
        Dtype::U64 => return integers::<8>(bytes, to, out, |b| i64::try_from(u64::from_le_bytes(b)).ok()),
        _ => return integers::<1>(bytes, to, out, |[b]| Some(i64::from(b))),
    }
    Ok(())
}

fn integers<const N: usize>(
    bytes: &[u8],
    to: DType,
    out: &mut [u8],
    read: impl Fn([u8; N]) -> Option<i64>,
) -> Result<(), ConvertError> {
    let (from, _) = bytes.as_chunks::<N>();
    for (i, value) in from.iter().map(|b| read(*b)).enumerate() {
        let range = ConvertError::Range(i, to);
        let value = value.ok_or(range)?;
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

    #[test]
    fn integers_of_any_width_are_integers_and_truth_values_are_not() {
        let check = |from: Dtype, bytes: &[u8], expect: Result<i64, ConvertError>| {
            let mut out = [0; 8];
            let converted = convert(from, bytes, DType::I64, &mut out);
            assert_eq!(converted.map(|()| i64::from_le_bytes(out)), expect, "{from:?}");
            assert_eq!(converts(from, DType::I64), from != Dtype::BOOL);
        };
        check(Dtype::I8, &[0xfe], Ok(-2));
        check(Dtype::U8, &[0xfe], Ok(254));
        check(Dtype::I16, &(-3i16).to_le_bytes(), Ok(-3));
        check(Dtype::U16, &65535u16.to_le_bytes(), Ok(65535));
        check(Dtype::U32, &u32::MAX.to_le_bytes(), Ok(i64::from(u32::MAX)));
        check(Dtype::U64, &7u64.to_le_bytes(), Ok(7));
        check(Dtype::U64, &u64::MAX.to_le_bytes(), Err(ConvertError::Range(0, DType::I64)));
        check(Dtype::BOOL, &[1], Err(ConvertError::Types(Dtype::BOOL, DType::I64)));
        let mut out = [0; 2];
        convert(Dtype::BOOL, &[1, 0], DType::Bool, &mut out).expect("truth values");
        assert_eq!(convert(Dtype::BOOL, &[1, 2], DType::Bool, &mut out), Err(ConvertError::Range(1, DType::Bool)));
    }
}
