//! The choices of a random case as a row of numbers: shorter rows and smaller numbers make simpler cases.

use types::{Key, philox4x32_10};

/// More than any case reads.
const LENGTH: u32 = 120;

/// Reads choices one after another; past the end all are 0.
pub struct Tape<'a> {
    numbers: &'a [u32],
    at: usize,
}

/// The row that belongs to a seed.
pub fn of_seed(seed: u64) -> Vec<u32> {
    (0..LENGTH).flat_map(|i| philox4x32_10([i, 0, 0, 0], Key::new(seed, "case").0)).collect()
}

impl<'a> Tape<'a> {
    pub fn new(numbers: &'a [u32]) -> Self {
        Self { numbers, at: 0 }
    }

    pub fn below(&mut self, bound: usize) -> usize {
        let number = self.numbers.get(self.at).copied().unwrap_or(0) as usize;
        self.at += 1;
        number % bound.max(1)
    }

    /// True once in `n` times; never past the end.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) + 1 == n
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// In another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = i - self.below(i + 1);
            items.swap(i, j);
        }
    }
}

/// The simplest row found for which `fails` still holds, by leaving out pieces and clearing numbers.
pub fn shrink(numbers: &[u32], fails: impl Fn(&[u32]) -> bool) -> Vec<u32> {
    let mut best = numbers.to_vec();
    let mut tries = 600;
    let mut attempt = |candidate: Vec<u32>, best: &mut Vec<u32>| {
        let better = tries > 0 && candidate != *best && fails(&candidate);
        tries -= i32::from(tries > 0);
        if better {
            *best = candidate;
        }
        better
    };
    let mut size = best.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < best.len() {
            let end = (at + size).min(best.len());
            let without = [&best[..at], &best[end..]].concat();
            let mut cleared = best.clone();
            cleared[at..end].fill(0);
            if !attempt(without, &mut best) {
                attempt(cleared, &mut best);
                at = end;
            }
        }
        size /= 2;
    }
    best
}
