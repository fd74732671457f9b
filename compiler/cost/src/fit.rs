//! Figures of a machine fitted to times that were measured on it.

use types::DType;

use crate::KernelTypes;

/// A kernel that was timed: its work, and the time of one launch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timed {
    pub types: KernelTypes,
    pub flops: u64,
    pub bytes: u64,
    pub seconds: f64,
}

/// What kernels reach: the first of each pair in f32, the second in bf16.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// FLOP in a second.
    pub products: [f64; 2],
    /// Bytes in a second.
    pub bandwidth: [f64; 2],
}

/// Rounds after which kernels no longer change sides.
const ROUNDS: usize = 20;

/// Rates under which the predicted times of all kernels that a rate bounds sum up to the measured ones. `None` if no
/// kernel is bound by one of the rates.
pub fn rates(timed: &[Timed]) -> Option<Rates> {
    let fastest = |which: usize, of: fn(&Timed) -> (DType, u64)| {
        let here = timed.iter().filter(|t| t.seconds > 0.0 && narrow(of(t).0) == which);
        here.map(|t| of(t).1 as f64 / t.seconds).fold(0.0, f64::max)
    };
    let mut rates = Rates {
        products: [0, 1].map(|which| fastest(which, |t| (t.types.products, t.flops))),
        bandwidth: [0, 1].map(|which| fastest(which, |t| (t.types.moved, t.bytes))),
    };
    for _ in 0..ROUNDS {
        // Work and seconds of the kernels that each rate bounds.
        let (mut products, mut moved) = ([(0.0, 0.0); 2], [(0.0, 0.0); 2]);
        for t in timed {
            let (p, m) = (narrow(t.types.products), narrow(t.types.moved));
            let by_memory = t.bytes as f64 / rates.bandwidth[m] > t.flops as f64 / rates.products[p];
            let (sum, work) = if by_memory { (&mut moved[m], t.bytes) } else { (&mut products[p], t.flops) };
            sum.0 += work as f64;
            sum.1 += t.seconds;
        }
        let rate = |(work, seconds): (f64, f64)| work / seconds;
        rates = Rates { products: products.map(rate), bandwidth: moved.map(rate) };
        if !rates.products.iter().chain(&rates.bandwidth).all(|rate| rate.is_finite() && *rate > 0.0) {
            return None;
        }
    }
    Some(rates)
}

/// The place in a pair.
fn narrow(dtype: DType) -> usize {
    usize::from(dtype == DType::BF16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_found_again() {
        let (products, bandwidth) = ([100e9, 300e9], [40e9, 15e9]);
        let mut timed = vec![];
        for dtype in [DType::F32, DType::BF16] {
            for (flops, bytes) in [(1_000_000_u64, 1_000_u64), (9_000_000, 50_000), (1_000, 4_000_000), (10, 80_000)] {
                let at = narrow(dtype);
                let seconds = (flops as f64 / products[at]).max(bytes as f64 / bandwidth[at]);
                timed.push(Timed { types: KernelTypes { products: dtype, moved: dtype }, flops, bytes, seconds });
            }
        }
        let found = rates(&timed).expect("rates");
        let pairs = found.products.iter().zip(&products).chain(found.bandwidth.iter().zip(&bandwidth));
        assert!(pairs.clone().all(|(a, b)| (a / b - 1.0).abs() < 1e-9), "{found:?}");
        assert_eq!(rates(&timed[..4]), None, "nothing is known of bf16");
    }
}
