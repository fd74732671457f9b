//! Reductions of elements, in the order of positions whatever the shape: the same bits on every rank and in every run.

use half::f16;
use plan::{Reduce, ReduceKind};
use types::DType;

/// Elements that are reduced over all sources before the next ones are looked at: they stay in the innermost cache.
const BLOCK: usize = 1024;

/// `to` becomes the reduction of `source(0)`, `source(1)`, ..., all as long as `to`. Sums of bf16 and f16 are kept in f32 and
/// rounded once; integers wrap; NaN wins over every maximum.
pub fn reduce<'a>(how: Reduce, to: &mut [u8], sources: usize, source: impl Fn(usize) -> &'a [u8]) {
    let sum = how.kind == ReduceKind::Sum;
    match (how.dtype, sum) {
        (DType::F32, true) => fold(to, sources, source, f32::from_ne_bytes, f32::to_ne_bytes, |a, b| a + b),
        (DType::F32, false) => fold(to, sources, source, f32::from_ne_bytes, f32::to_ne_bytes, max),
        (DType::F64, true) => fold(to, sources, source, f64::from_ne_bytes, f64::to_ne_bytes, |a, b| a + b),
        (DType::F64, false) => fold(to, sources, source, f64::from_ne_bytes, f64::to_ne_bytes, max),
        (DType::BF16, true) => fold(to, sources, source, from_bf16, to_bf16, |a, b| a + b),
        (DType::BF16, false) => fold(to, sources, source, from_bf16, to_bf16, max),
        (DType::F16, true) => fold(to, sources, source, from_f16, to_f16, |a, b| a + b),
        (DType::F16, false) => fold(to, sources, source, from_f16, to_f16, max),
        (DType::I32, true) => fold(to, sources, source, i32::from_ne_bytes, i32::to_ne_bytes, i32::wrapping_add),
        (DType::I32, false) => fold(to, sources, source, i32::from_ne_bytes, i32::to_ne_bytes, i32::max),
        (DType::I64, true) => fold(to, sources, source, i64::from_ne_bytes, i64::to_ne_bytes, i64::wrapping_add),
        (DType::I64, false) => fold(to, sources, source, i64::from_ne_bytes, i64::to_ne_bytes, i64::max),
        // An operation of these types is refused when it is made.
        (DType::Bool | DType::Work, _) => {}
    }
}

fn fold<'a, W: Copy + Default, const N: usize>(
    to: &mut [u8],
    sources: usize,
    source: impl Fn(usize) -> &'a [u8],
    load: impl Fn([u8; N]) -> W,
    store: impl Fn(W) -> [u8; N],
    combine: impl Fn(W, W) -> W,
) {
    let mut wide = [W::default(); BLOCK];
    for (b, to) in to.chunks_mut(BLOCK * N).enumerate() {
        let wide = &mut wide[..to.len() / N];
        for s in 0..sources {
            let from = &source(s)[b * BLOCK * N..][..to.len()];
            let from = wide.iter_mut().zip(from.as_chunks::<N>().0);
            if s == 0 {
                from.for_each(|(w, bytes)| *w = load(*bytes));
            } else {
                from.for_each(|(w, bytes)| *w = combine(*w, load(*bytes)));
            }
        }
        to.as_chunks_mut::<N>().0.iter_mut().zip(wide).for_each(|(to, w)| *to = store(*w));
    }
}

/// The first of equals, and a NaN if there is one.
fn max<T: PartialOrd + Copy>(a: T, b: T) -> T {
    let keep = a >= b || a.partial_cmp(&a).is_none();
    if keep { a } else { b }
}

fn from_bf16(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_ne_bytes(bytes)) << 16)
}

/// To nearest even, without branches, so that it becomes vector code.
fn to_bf16(value: f32) -> [u8; 2] {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
    let quiet = (bits >> 16) | 0x40;
    let chosen = if value.is_nan() { quiet } else { rounded };
    (chosen as u16).to_ne_bytes()
}

fn from_f16(bytes: [u8; 2]) -> f32 {
    f16::from_bits(u16::from_ne_bytes(bytes)).to_f32()
}

fn to_f16(value: f32) -> [u8; 2] {
    f16::from_f32(value).to_bits().to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    #[test]
    fn bf16_rounds_as_half_does() {
        for high in 0..=u16::MAX {
            for low in [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF] {
                let value = f32::from_bits(u32::from(high) << 16 | low);
                assert_eq!(u16::from_ne_bytes(to_bf16(value)), bf16::from_f32(value).to_bits(), "{value}");
            }
        }
    }

    #[test]
    fn sums_of_bf16_round_once() {
        let one = |v: f32| bf16::from_f32(v).to_bits().to_ne_bytes();
        let sources = [one(256.0), one(1.0), one(1.0)];
        let how = Reduce { kind: ReduceKind::Sum, dtype: DType::BF16 };
        let mut to = [0; 2];
        reduce(how, &mut to, 3, |s| &sources[s]);
        // Rounded after each addition, 256 + 1 would stay 256.
        assert_eq!(from_bf16(to), 258.0);
    }

    #[test]
    fn nan_wins() {
        let how = Reduce { kind: ReduceKind::Max, dtype: DType::F32 };
        for values in [[f32::NAN, 1.0, 2.0], [1.0, f32::NAN, 2.0], [1.0, 2.0, f32::NAN]] {
            let mut to = [0; 4];
            let bytes = values.map(f32::to_ne_bytes);
            reduce(how, &mut to, 3, |s| &bytes[s]);
            assert!(f32::from_ne_bytes(to).is_nan(), "{values:?}");
        }
    }
}
