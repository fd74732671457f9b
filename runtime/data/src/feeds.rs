//! The source of a program's feeds: given inputs, data, draws, or synthetic values.

use plan::{Feed, FeedId, Source};
use runtime_core::{FeedError, FeedSource};
use types::{Distribution, Key, fill};

use crate::convert::narrow;
use crate::{Dataset, Inputs};

pub struct Feeds {
    feeds: Vec<Feed>,
    seed: u64,
    inputs: Inputs,
    data: Option<Dataset>,
    /// The first step of this run, and the sample that it begins with.
    start: (u64, u64),
    scratch: Vec<f32>,
}

impl Feeds {
    /// `start` is the first step of this run and the number of samples that were used before it.
    pub fn new(feeds: Vec<Feed>, seed: u64, inputs: Inputs, data: Option<Dataset>, start: (u64, u64)) -> Self {
        Self { feeds, seed, inputs, data, start, scratch: Vec::new() }
    }

    /// Data feeds that neither inputs nor data give, among those that the program takes.
    pub fn synthetic(&self, used: impl Fn(usize) -> bool) -> Vec<&str> {
        let made_up = |i: usize, feed: &Feed| {
            used(i) && matches!(feed.source, Source::Data) && self.data.is_none() && self.inputs.get(i).is_none()
        };
        self.feeds.iter().enumerate().filter(|(i, f)| made_up(*i, f)).map(|(_, f)| f.name.as_str()).collect()
    }

    /// Samples that one step takes from the data: the batch of its data feeds.
    pub fn batch(&self, used: impl Fn(usize) -> bool) -> u64 {
        let data = self.feeds.iter().enumerate().filter(|(i, f)| used(*i) && matches!(f.source, Source::Data));
        data.filter_map(|(_, f)| f.ty.dims.first()).map(|d| d.size as u64).max().unwrap_or(0)
    }

    fn draw(&mut self, feed: usize, distribution: Distribution, key: Key, step: u64, to: &mut [u8]) {
        let ty = &self.feeds[feed].ty;
        self.scratch.resize(to.len() / ty.dtype.bytes(), 0.0);
        fill(distribution, key, step, 0, &mut self.scratch);
        narrow(&self.scratch, ty.dtype, to);
    }
}

impl FeedSource for Feeds {
    fn fill(&mut self, feed: FeedId, step: u64, to: &mut [u8]) -> Result<(), FeedError> {
        let at = feed.index();
        if let Some(values) = self.inputs.get(at) {
            to.copy_from_slice(values);
            return Ok(());
        }
        let name = self.feeds[at].name.clone();
        match self.feeds[at].source {
            Source::Draw(distribution) => self.draw(at, distribution, Key::new(self.seed, &name), step, to),
            Source::Data => {
                let feed = &self.feeds[at];
                if let Some(data) = &mut self.data {
                    let batch = feed.ty.dims.first().map_or(0, |d| d.size as u64);
                    let first = self.start.1 + (step - self.start.0) * batch;
                    data.batch(feed, first, to)?;
                } else if feed.ty.dtype.is_float() {
                    let key = Key::new(self.seed, &format!("synthetic/{name}"));
                    self.draw(at, Distribution::Normal { mean: 0.0, std: 1.0 }, key, step, to);
                } else {
                    // Zero is the one index that every table has.
                    to.fill(0);
                }
            }
        }
        Ok(())
    }
}
