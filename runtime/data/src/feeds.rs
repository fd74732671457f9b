//! The source of a program's feeds: given inputs, data, draws, or synthetic values.

use plan::{Feed, FeedId, Source};
use runtime_core::{FeedError, FeedSource};
use types::{Distribution, Indices, Key, Mesh, Ragged, fill};

use crate::convert::narrow;
use crate::dataset::RaggedFeed;
use crate::ragged::Groups;
use crate::watch::{Watch, not_finite};
use crate::{DataError, Dataset, Inputs, Share, Strange};

/// One rank's shares of the feeds; copies for other ranks share the inputs and the data.
#[derive(Clone)]
pub struct Feeds {
    feeds: Vec<Feed>,
    /// By feed.
    shares: Vec<Share>,
    seed: u64,
    inputs: Inputs,
    data: Option<Dataset>,
    groups: Option<Groups>,
    /// The first step of this run, and the sample that it begins with.
    start: (u64, u64),
    watch: Watch,
    scratch: Vec<f32>,
}

impl Feeds {
    /// Whole feeds of a run that begins with step 0.
    pub fn new(feeds: Vec<Feed>, seed: u64, inputs: Inputs, data: Option<Dataset>) -> Self {
        let shares = feeds.iter().map(|f| Share::whole(&f.ty)).collect();
        let (start, watch, scratch) = ((0, 0), Watch::default(), Vec::new());
        Self { feeds, shares, seed, inputs, data, groups: None, start, watch, scratch }
    }

    /// The same with the plan's ragged axes.
    pub fn ragged(self, axes: &[Ragged]) -> Self {
        Self { groups: Groups::of(axes, &self.feeds), ..self }
    }

    /// Compares a feed with all records of the data, and tries it on the first, so that what fits nowhere is found before a
    /// run begins.
    pub fn check(&self, data: &Dataset, feed: &Feed) -> Result<(), DataError> {
        match self.groups.as_ref().filter(|groups| groups.axis(feed).is_some()) {
            Some(groups) => data.check_ragged(RaggedFeed { feed, feeds: &self.feeds, groups }),
            None => data.check(feed),
        }
    }

    /// What the rank at `coordinates` gets of them.
    pub fn at(&self, mesh: &Mesh, coordinates: &[usize]) -> Self {
        let share = |f: &Feed| Share::new(mesh, coordinates, &f.ty, &f.layout);
        Self { shares: self.feeds.iter().map(share).collect(), ..self.clone() }
    }

    /// The same for a run that begins with `step`, after `samples` samples were used.
    pub fn starting(self, step: u64, samples: u64) -> Self {
        Self { start: (step, samples), ..self }
    }

    /// The records that are not finite among those of a step, which are read by now, and of the steps before it; each
    /// is told once.
    pub fn strange_records(&self, step: u64) -> Vec<String> {
        self.watch.told(step)
    }

    /// The feeds of `--inputs` that hold a number that is not finite, each with its first.
    pub fn strange_inputs(&self) -> Vec<(&str, Strange)> {
        let given = self.feeds.iter().enumerate().filter_map(|(i, feed)| Some((feed, self.inputs.get(i)?)));
        given.filter_map(|(f, bytes)| Some((f.name.as_str(), not_finite(&Share::whole(&f.ty), bytes)?))).collect()
    }

    /// The records of `count` samples from number `first` on, if they come from data.
    pub fn records(&self, first: u64, count: u64) -> Vec<String> {
        let Some(mut data) = self.data.clone() else { return Vec::new() };
        (first..first + count).map(|sample| data.name(sample)).collect()
    }

    /// The data feeds that are used and that `--inputs` does not give.
    pub fn from_data(&self, used: impl Fn(usize) -> bool) -> Vec<&Feed> {
        let open = |i: usize, f: &Feed| used(i) && f.source.is_data() && self.inputs.get(i).is_none();
        self.feeds.iter().enumerate().filter(|(i, f)| open(*i, f)).map(|(_, f)| f).collect()
    }

    /// Samples that one step takes from the data, on all ranks together: the batch of its data feeds.
    pub fn batch(&self, used: impl Fn(usize) -> bool) -> u64 {
        let mut data = self.feeds.iter().enumerate().filter(|(i, f)| used(*i) && f.source.is_data());
        if let Some(groups) = &self.groups {
            return if data.next().is_some() { groups.samples as u64 } else { 0 };
        }
        data.filter_map(|(_, f)| f.ty.dims.first()).map(|d| d.size as u64).max().unwrap_or(0)
    }

    /// Draws are numbered by the place in the whole feed, so that every mesh draws the same.
    fn draw(&mut self, feed: usize, distribution: Distribution, key: Key, step: u64, to: &mut [u8]) {
        let share = &self.shares[feed];
        let size = share.ty().dtype.bytes();
        share.clear_padding(to);
        for run in share.runs() {
            self.scratch.resize(run.count, 0.0);
            fill(distribution, key, step, run.logical as u64, &mut self.scratch);
            if let Source::Indices(Indices { rows, .. }) = self.feeds[feed].source {
                // The largest draws round up to the first number out of range.
                self.scratch.iter_mut().for_each(|row| *row = row.min(rows.saturating_sub(1) as f32));
            }
            narrow(&self.scratch, share.ty().dtype, &mut to[run.local * size..][..run.count * size]);
        }
    }
}

impl FeedSource for Feeds {
    fn fill(&mut self, feed: FeedId, step: u64, to: &mut [u8]) -> Result<(), FeedError> {
        let at = feed.index();
        if let Some(values) = self.inputs.at(at, step)? {
            self.shares[at].scatter(&values, to);
            return Ok(());
        }
        let feed = &self.feeds[at];
        if let Some(groups) = self.groups.as_ref().filter(|groups| groups.axis(feed).is_some()) {
            let Some(data) = &mut self.data else {
                to.fill(0);
                return Ok(());
            };
            let first = self.start.1 + (step - self.start.0) * groups.samples as u64;
            let of = RaggedFeed { feed, feeds: &self.feeds, groups };
            return Ok(data.groups(of, &self.shares[at], first, to, |rows| {
                self.watch.look_at(step, rows.ty, rows.bytes, || rows.tensor);
            })?);
        }
        match feed.source {
            Source::Draw(distribution) => {
                let key = Key::new(self.seed, &feed.name);
                self.draw(at, distribution, key, step, to);
            }
            Source::Data | Source::Indices(_) => {
                if let Some(data) = &mut self.data {
                    let batch = feed.ty.dims.first().map_or(0, |d| d.size as u64);
                    let first = self.start.1 + (step - self.start.0) * batch;
                    data.batch(feed, &self.shares[at], first, to)?;
                    let tensor = |row: usize| data.tensor(first + row as u64, feed);
                    self.watch.look(step, &self.shares[at], to, tensor);
                    return Ok(());
                }
                let key = Key::new(self.seed, &format!("synthetic/{}", feed.name));
                let distribution = match feed.source {
                    Source::Indices(Indices { rows, .. }) => Distribution::Uniform { lo: 0.0, hi: rows as f64 },
                    _ if feed.ty.dtype.is_float() => Distribution::Normal { mean: 0.0, std: 1.0 },
                    _ => {
                        to.fill(0);
                        return Ok(());
                    }
                };
                self.draw(at, distribution, key, step, to);
            }
        }
        Ok(())
    }
}
