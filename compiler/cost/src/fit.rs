//! Figures of a machine fitted to times that were measured on it.

use types::DType;

use crate::efficiency::interpolated;
use crate::{KernelTypes, Work};

/// A kernel that was timed: its work, and the time of one launch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timed {
    pub types: KernelTypes,
    pub work: Work,
    pub seconds: f64,
}

/// What kernels reach on a machine whose units share products and work on single elements. The first of each pair is of
/// f32, the second of bf16.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates {
    /// FLOP in a second by the products of a kernel in GFLOP: points of a curve.
    pub products: [Vec<[f64; 2]>; 2],
    /// Operations on single elements in a second.
    pub vector: [f64; 2],
    /// Bytes in a second.
    pub bandwidth: [f64; 2],
}

/// GFLOP of the points of a curve.
const POINTS: [f64; 5] = [0.001, 0.01, 0.1, 1.0, 10.0];

/// A rate that is this much slower makes a difference, if kernels know it at all.
const SLOW: f64 = 1e-3;

/// A point of a curve stands for at least this share of the time of kernels with products.
const SHARE: f64 = 0.01;

/// The first steps of the search and the last, as logarithms of a rate.
const STEPS: [f64; 2] = [0.5, 1e-4];

/// Rounds of the search at most; some hundreds are enough.
const ROUNDS: usize = 5_000;

/// Rates under which predicted times are the least off, each by its logarithm and for as much as it took. `None` if no
/// kernel shows one of the rates.
pub fn rates(timed: &[Timed]) -> Option<Rates> {
    let timed: Vec<Timed> = timed.iter().copied().filter(|t| t.seconds > 0.0).collect();
    let mut rates = first(&timed)?;
    let mut loss = off(&rates, &timed);
    // What no kernel showed is taken to be out of reach.
    let most: Vec<f64> = rates.figures().map(|rate| *rate).collect();
    let figures = most.len();
    let mut step = STEPS[0];
    for _ in 0..ROUNDS {
        if step < STEPS[1] {
            break;
        }
        let before = loss;
        for figure in 0..figures {
            for factor in [step.exp(), (-step).exp()] {
                loop {
                    let mut next = rates.with(figure, factor);
                    next.figures().zip(&most).for_each(|(rate, most)| *rate = rate.min(*most));
                    let found = off(&next, &timed);
                    if found >= loss || found.is_nan() {
                        break;
                    }
                    (rates, loss) = (next, found);
                }
            }
        }
        if before - loss <= before * 1e-6 {
            step /= 2.0;
        }
    }
    let shown = |figure| off(&rates.with(figure, SLOW), &timed) > loss;
    (loss.is_finite() && (0..figures).all(shown)).then_some(rates)
}

/// The fastest that any kernel shows, where the search begins.
fn first(timed: &[Timed]) -> Option<Rates> {
    let fastest = |which: usize, of: &dyn Fn(&Timed) -> (DType, u64)| {
        let here = timed.iter().filter(|t| narrow(of(t).0) == which);
        Some(here.map(|t| of(t).1 as f64 / t.seconds).fold(0.0, f64::max)).filter(|rate| *rate > 0.0)
    };
    let products = |which: usize| {
        let rate = fastest(which, &|t| (t.types.products, t.work.products))?;
        let here: Vec<&Timed> =
            timed.iter().filter(|t| narrow(t.types.products) == which && t.work.products > 0).collect();
        let near = |t: &&&Timed, at: f64| (t.work.products as f64 * 1e-9 / at).log10().abs() <= 0.5;
        let all: f64 = here.iter().map(|t| t.seconds).sum();
        let weighs = |at: f64| here.iter().filter(|t| near(t, at)).map(|t| t.seconds).sum::<f64>() >= all * SHARE;
        let points: Vec<[f64; 2]> = POINTS.into_iter().filter(|at| weighs(*at)).map(|at| [at, rate]).collect();
        Some(points).filter(|points| !points.is_empty())
    };
    let vector = |which| fastest(which, &|t| (t.types.moved, t.work.elementwise));
    let bandwidth = |which| fastest(which, &|t| (t.types.moved, t.work.bytes));
    Some(Rates {
        products: [products(0)?, products(1)?],
        vector: [vector(0)?, vector(1)?],
        bandwidth: [bandwidth(0)?, bandwidth(1)?],
    })
}

/// How far predictions are off.
fn off(rates: &Rates, timed: &[Timed]) -> f64 {
    timed.iter().map(|t| t.seconds * (rates.seconds(t) / t.seconds).ln().powi(2)).sum()
}

impl Rates {
    fn seconds(&self, of: &Timed) -> f64 {
        let (p, m) = (narrow(of.types.products), narrow(of.types.moved));
        let (products, elementwise) = (of.work.products as f64, of.work.elementwise as f64);
        let computed = products / interpolated(&self.products[p], products * 1e-9) + elementwise / self.vector[m];
        computed.max(of.work.bytes as f64 / self.bandwidth[m]).max(f64::MIN_POSITIVE)
    }

    fn figures(&mut self) -> impl Iterator<Item = &mut f64> {
        let curves = self.products.iter_mut().flatten().map(|[_, rate]| rate);
        curves.chain(&mut self.vector).chain(&mut self.bandwidth)
    }

    fn with(&self, figure: usize, factor: f64) -> Self {
        let mut next = self.clone();
        if let Some(rate) = next.figures().nth(figure) {
            *rate *= factor;
        }
        next
    }
}

/// The place in a pair.
fn narrow(dtype: DType) -> usize {
    usize::from(dtype == DType::BF16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kernels of both types with times that follow from rates.
    fn timed(rates: &Rates) -> Vec<Timed> {
        let mut timed = vec![];
        for dtype in [DType::F32, DType::BF16] {
            for (products, elementwise, bytes) in [
                (10_000_000, 1_000, 1_000),
                (30_000_000, 2_000_000, 50_000),
                (100_000_000, 3_000, 100_000),
                (300_000_000, 30_000_000, 100_000),
                (1_000_000_000, 5_000, 500_000),
                (2_000_000_000, 50_000_000, 100_000_000),
                (1_000, 20_000, 4_000_000),
                (0, 1_000_000, 80_000),
                (0, 500_000, 60_000_000),
                (0, 0, 3_000_000),
            ] {
                let work = Work { products, elementwise, bytes };
                let types = KernelTypes { products: dtype, moved: dtype };
                let kernel = Timed { types, work, seconds: 0.0 };
                timed.push(Timed { seconds: rates.seconds(&kernel), ..kernel });
            }
        }
        timed
    }

    #[test]
    fn rates_are_found_again() {
        let curve = |rates: [f64; 3]| [0.01, 0.1, 1.0].into_iter().zip(rates).map(|(at, rate)| [at, rate]).collect();
        let mut made_up = Rates {
            products: [curve([60e9, 90e9, 100e9]), curve([100e9, 250e9, 300e9])],
            vector: [20e9, 8e9],
            bandwidth: [40e9, 15e9],
        };
        let timed = timed(&made_up);
        let mut found = rates(&timed).expect("rates");
        assert_eq!(found.products.clone().map(|c| c.len()), [3, 3], "{found:?}");
        for (a, b) in found.figures().zip(made_up.figures()) {
            assert!((*a / *b - 1.0).abs() < 0.01, "{a} for {b}");
        }
        assert_eq!(rates(&timed[..10]), None, "nothing is known of bf16");
        let without: Vec<Timed> = timed.iter().copied().filter(|t| t.work.elementwise == 0).collect();
        assert_eq!(rates(&without), None, "nothing is known of single elements");
    }
}
