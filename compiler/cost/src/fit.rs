//! Figures of a machine fitted to times that were measured on it.

use types::DType;

/// A kernel that was timed: its work, and the time of one launch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timed {
    /// The type of its products.
    pub dtype: DType,
    pub flops: u64,
    pub bytes: u64,
    /// How often it ran; a fit weighs it so.
    pub runs: u64,
    pub seconds: f64,
}

/// What kernels reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// FLOP in a second of products in f32, and in bf16.
    pub f32: f64,
    pub bf16: f64,
    /// Bytes in a second.
    pub bandwidth: f64,
}

/// Rounds after which kernels no longer change sides.
const ROUNDS: usize = 20;

/// Rates under which the predicted times of all kernels that a rate bounds sum up to the measured ones. `None` if no
/// kernel is bound by one of the rates.
pub fn rates(timed: &[Timed]) -> Option<Rates> {
    let fastest = |of: &dyn Fn(&Timed) -> f64| timed.iter().filter(|t| t.seconds > 0.0).map(of).fold(0.0, f64::max);
    let product = |dtype: DType| {
        fastest(&|t| if (t.dtype == DType::BF16) == (dtype == DType::BF16) { t.flops as f64 / t.seconds } else { 0.0 })
    };
    let bandwidth = fastest(&|t| t.bytes as f64 / t.seconds);
    let mut rates = Rates { f32: product(DType::F32), bf16: product(DType::BF16), bandwidth };
    for _ in 0..ROUNDS {
        // Work and seconds of the kernels that each rate bounds.
        let mut sums = [(0.0, 0.0); 3];
        for t in timed {
            let narrow = usize::from(t.dtype == DType::BF16);
            let rate = [rates.f32, rates.bf16][narrow];
            let by_memory = t.bytes as f64 / rates.bandwidth > t.flops as f64 / rate;
            let (at, work) = if by_memory { (2, t.bytes) } else { (narrow, t.flops) };
            sums[at].0 += (work * t.runs) as f64;
            sums[at].1 += t.seconds * t.runs as f64;
        }
        let [f32, bf16, bandwidth] = sums.map(|(work, seconds)| work / seconds);
        rates = Rates { f32, bf16, bandwidth };
        if ![f32, bf16, bandwidth].iter().all(|rate| rate.is_finite() && *rate > 0.0) {
            return None;
        }
    }
    Some(rates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_found_again() {
        let (f32, bf16, bandwidth) = (100e9, 300e9, 40e9);
        let mut timed = vec![];
        for (dtype, rate) in [(DType::F32, f32), (DType::BF16, bf16)] {
            for (flops, bytes) in [(1_000_000_u64, 1_000_u64), (9_000_000, 500_000), (1_000, 4_000_000), (10, 80_000)] {
                let seconds = (flops as f64 / rate).max(bytes as f64 / bandwidth);
                timed.push(Timed { dtype, flops, bytes, runs: 1 + flops % 7, seconds });
            }
        }
        let found = rates(&timed).expect("rates");
        for (a, b) in [(found.f32, f32), (found.bf16, bf16), (found.bandwidth, bandwidth)] {
            assert!((a / b - 1.0).abs() < 1e-9, "{found:?}");
        }
        assert_eq!(rates(&timed[..4]), None, "nothing is known of bf16");
    }
}
