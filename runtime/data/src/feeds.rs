//! The source of a program's feeds: given inputs, data, draws, or synthetic values.

use plan::{Feed, FeedId, Source};
use runtime_core::{FeedError, FeedSource};
use types::{Distribution, Key, fill};

use crate::convert::narrow;
use crate::{DataError, Dataset, Inputs};

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
    /// Feeds of a run that begins with step 0.
    pub fn new(feeds: Vec<Feed>, seed: u64, inputs: Inputs, data: Option<Dataset>) -> Self {
        Self { feeds, seed, inputs, data, start: (0, 0), scratch: Vec::new() }
    }

    /// The same for a run that begins with `step`, after `samples` samples were used.
    pub fn starting(self, step: u64, samples: u64) -> Self {
        Self { start: (step, samples), ..self }
    }

    /// Proves that the data has what the program takes from it, and gives the names of the feeds that neither inputs nor
    /// data have.
    pub fn check(&self, used: impl Fn(usize) -> bool) -> Result<Vec<&str>, DataError> {
        let open = |i: usize, f: &Feed| used(i) && matches!(f.source, Source::Data) && self.inputs.get(i).is_none();
        let open: Vec<&Feed> = self.feeds.iter().enumerate().filter(|(i, f)| open(*i, f)).map(|(_, f)| f).collect();
        let Some(data) = &self.data else { return Ok(open.iter().map(|f| f.name.as_str()).collect()) };
        if open.is_empty() {
            return Err(DataError::Mismatch {
                what: "the program takes nothing from data".into(),
                problems: Vec::new(),
                help: Some("leave out --data".into()),
            });
        }
        open.iter().try_for_each(|feed| data.check(feed))?;
        Ok(Vec::new())
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
