//! Element types, their widths, and reductions over them.

use half::{bf16, f16};

/// Bytes of an element of `HcclDataType`.
pub fn bytes(dtype: i32) -> Option<usize> {
    Some(match dtype {
        0 | 7 => 1,
        1 | 3 | 8 | 11 => 2,
        2 | 4 | 9 => 4,
        5 | 6 | 10 => 8,
        _ => return None,
    })
}

/// The reduction of these, in their order: `HCCL_REDUCE_SUM`, `_PROD`, `_MAX` or `_MIN`. Halves are added in f32 and
/// rounded once.
pub fn reduce(dtype: i32, op: i32, parts: &[Vec<u8>]) -> Option<Vec<u8>> {
    macro_rules! over {
        ($ty:ty, $wide:ty, $in:expr, $out:expr) => {{
            const N: usize = size_of::<$ty>();
            let fold: fn($wide, $wide) -> $wide = match op {
                0 => |a, b| a + b,
                1 => |a, b| a * b,
                2 => |a, b| if b > a { b } else { a },
                3 => |a, b| if b < a { b } else { a },
                _ => return None,
            };
            let values = |part: &'_ Vec<u8>| -> Vec<$wide> {
                part.as_chunks::<N>().0.iter().map(|b| $in(<$ty>::from_le_bytes(*b))).collect()
            };
            let (first, rest) = parts.split_first()?;
            let mut all = values(first);
            for part in rest {
                all.iter_mut().zip(values(part)).for_each(|(a, b)| *a = fold(*a, b));
            }
            all.into_iter().flat_map(|v| <$ty>::to_le_bytes($out(v))).collect()
        }};
    }
    Some(match dtype {
        0 => over!(i8, i8, |v| v, |v| v),
        1 => over!(i16, i16, |v| v, |v| v),
        2 => over!(i32, i32, |v| v, |v| v),
        3 => over!(f16, f32, f16::to_f32, f16::from_f32),
        4 => over!(f32, f32, |v| v, |v| v),
        5 => over!(i64, i64, |v| v, |v| v),
        6 => over!(u64, u64, |v| v, |v| v),
        7 => over!(u8, u8, |v| v, |v| v),
        10 => over!(f64, f64, |v| v, |v| v),
        11 => over!(bf16, f32, bf16::to_f32, bf16::from_f32),
        _ => return None,
    })
}
