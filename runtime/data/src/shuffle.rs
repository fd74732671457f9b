//! The order of records: a permutation for each epoch, drawn from the seed.

use types::{Key, philox4x32_10};

#[derive(Clone)]
pub struct Shuffle {
    key: Key,
    count: u64,
    epoch: Option<u64>,
    order: Vec<u32>,
}

impl Shuffle {
    pub fn new(seed: u64, count: u32) -> Self {
        Self { key: Key::new(seed, "data/order"), count: u64::from(count), epoch: None, order: Vec::new() }
    }

    /// The record that is the `sample`-th of the whole run, counted over all epochs. There must be records.
    pub fn record(&mut self, sample: u64) -> usize {
        let (epoch, at) = (sample / self.count, sample % self.count);
        if self.epoch != Some(epoch) {
            self.permute(epoch);
            self.epoch = Some(epoch);
        }
        self.order[at as usize] as usize
    }

    /// Fisher and Yates, with the numbers of one epoch.
    fn permute(&mut self, epoch: u64) {
        self.order.clear();
        self.order.extend(0..self.count as u32);
        for i in (1..self.order.len()).rev() {
            let words = philox4x32_10([i as u32, 0, epoch as u32, (epoch >> 32) as u32], self.key.0);
            let word = u64::from(words[0]) << 32 | u64::from(words[1]);
            // The bias of a 64-bit remainder is far below what any run could show.
            self.order.swap(i, (word % (i as u64 + 1)) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_visits_every_record_once() {
        let mut shuffle = Shuffle::new(3, 100);
        let epochs: Vec<Vec<usize>> = (0..3).map(|e| (0..100).map(|i| shuffle.record(e * 100 + i)).collect()).collect();
        for epoch in &epochs {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        }
        assert_ne!(epochs[0], epochs[1]);
        // From anywhere, in any order.
        assert_eq!(Shuffle::new(3, 100).record(231), epochs[2][31]);
        assert_ne!(Shuffle::new(4, 100).record(231), epochs[2][31]);
    }
}
