//! Values of floats that are NaN or infinite.

use types::DType;

/// Values that are looked at before the first offender among them is sought.
const BLOCK: usize = 4096;

/// The first element that is NaN or infinite; integers have none.
pub fn first_not_finite(dtype: DType, bytes: &[u8]) -> Option<usize> {
    match dtype {
        DType::F64 => first(bytes, |b| !f64::from_le_bytes(b).is_finite()),
        DType::Work | DType::F32 => first(bytes, |b| !f32::from_le_bytes(b).is_finite()),
        // All bits of the exponent are set.
        DType::BF16 => first(bytes, |b| u16::from_le_bytes(b) & 0x7f80 == 0x7f80),
        DType::F16 => first(bytes, |b| u16::from_le_bytes(b) & 0x7c00 == 0x7c00),
        DType::I64 | DType::I32 | DType::Bool => None,
    }
}

fn first<const N: usize>(bytes: &[u8], offends: impl Fn([u8; N]) -> bool) -> Option<usize> {
    let (values, _) = bytes.as_chunks::<N>();
    // A block is read to its end, which needs no branch for each value.
    let at = values.chunks(BLOCK).position(|block| block.iter().fold(false, |any, v| any | offends(*v)))? * BLOCK;
    values[at..].iter().position(|v| offends(*v)).map(|i| at + i)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::narrow;

    #[test]
    fn the_first_offender_is_found_in_every_type() {
        for dtype in [DType::F64, DType::F32, DType::BF16, DType::F16] {
            for offender in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 7] {
                    let mut values = vec![-65504.0; 2 * BLOCK + 10];
                    let mut bytes = vec![0; values.len() * dtype.bytes()];
                    narrow(&values, dtype, &mut bytes);
                    assert_eq!(first_not_finite(dtype, &bytes), None, "{dtype}");
                    values[at..].fill(offender);
                    narrow(&values, dtype, &mut bytes);
                    assert_eq!(first_not_finite(dtype, &bytes), Some(at), "{dtype} {offender}");
                }
            }
        }
        assert_eq!(first_not_finite(DType::I32, &[0xff; 8]), None);
    }
}
