//! `--inputs`: feeds and draws of a run's programs by name, from one safetensors file for all steps or from one a step.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use plan::{Feed, Source};
use types::{Ragged, nearest};

use crate::convert::{convert, converts, out_of_range};
use crate::dataset::{RaggedFeed, ragged_rows};
use crate::ragged::{Groups, Parts, Rows};
use crate::replay::Replay;
use crate::{DataError, Problem, TensorFile, TensorView};

#[derive(Clone)]
pub struct Inputs {
    /// By feed, whole and in the feed's type; none for feeds that the file does not give.
    values: Vec<Option<Arc<[u8]>>>,
    /// Where each step has a file of its own, and which of the run's programs this is: `values` are those of the first.
    replay: Option<(Arc<Replay>, usize)>,
}

/// A program of a run, as far as inputs are concerned.
pub struct Taker<'a> {
    pub program: &'a str,
    pub feeds: &'a [Feed],
    /// By feed: whether the run takes it.
    pub used: Vec<bool>,
    /// The plan's ragged axes.
    pub ragged: &'a [Ragged],
}

impl Taker<'_> {
    fn used(&self) -> impl Iterator<Item = (usize, &Feed)> {
        self.feeds.iter().enumerate().zip(&self.used).filter(|(_, used)| **used).map(|(feed, _)| feed)
    }

    fn groups(&self) -> Option<Groups> {
        Groups::of(self.ragged, self.feeds)
    }
}

/// Rows that a file gives for a ragged feed, in the feed's type.
struct Given {
    rows: usize,
    bytes: Vec<u8>,
}

impl Inputs {
    /// Without a file: nothing is given.
    pub fn none(feeds: &[Feed]) -> Self {
        Self { values: vec![None; feeds.len()], replay: None }
    }

    /// Reads all that the file has; `used` tells which feeds the run takes.
    pub fn open(path: &Path, feeds: &[Feed], used: impl Fn(usize) -> bool) -> Result<Self, DataError> {
        let used = (0..feeds.len()).map(used).collect();
        let mut inputs = Self::of_programs(path, &[Taker { program: "", feeds, used, ragged: &[] }])?;
        Ok(inputs.pop().unwrap_or_else(|| Self::none(feeds)))
    }

    /// Reads a file, or the first of a folder with a file for each step, for these programs.
    pub fn of_run(path: &Path, programs: &[Taker<'_>]) -> Result<Vec<Self>, DataError> {
        if !path.is_dir() {
            return Self::of_programs(path, programs);
        }
        let (replay, mut inputs) = Replay::open(path, programs)?;
        inputs.iter_mut().enumerate().for_each(|(p, inputs)| inputs.replay = Some((replay.clone(), p)));
        Ok(inputs)
    }

    /// Reads all that the file has for these programs. A tensor `x` is for the feeds of that name of all programs, but for
    /// one that has a tensor `PROGRAM/x` of its own.
    pub fn of_programs(path: &Path, programs: &[Taker<'_>]) -> Result<Vec<Self>, DataError> {
        let file = TensorFile::open(path)?;
        let several = programs.len() > 1;
        let full = |taker: &Taker<'_>, feed: &Feed| match several {
            true => format!("{}/{}", taker.program, feed.name),
            false => feed.name.to_string(),
        };
        let mut problems = Vec::new();
        let mut all: Vec<Self> = programs.iter().map(|p| Self::none(p.feeds)).collect();
        let groups: Vec<Option<Groups>> = programs.iter().map(Taker::groups).collect();
        let mut ragged: Vec<BTreeMap<usize, Given>> = programs.iter().map(|_| BTreeMap::new()).collect();
        for name in file.names() {
            let feeds = || programs.iter().enumerate().flat_map(|(p, taker)| taker.used().map(move |f| (p, taker, f)));
            // The feed's own name before its aliases, and that of its program before both.
            let is = |taker: &Taker<'_>, feed: &Feed| {
                let alias = || feed.names().any(|n| n == name) && file.get(&feed.name).is_none();
                feed.name == *name || full(taker, feed) == *name || alias()
            };
            let mut known = feeds().filter(|(_, taker, (_, feed))| is(taker, feed)).peekable();
            let (Some(_), Some(view)) = (known.peek(), file.get(name)) else {
                let near = nearest(name, feeds().map(|(_, _, (_, feed))| feed.name.as_str()));
                let near =
                    if near.is_empty() { String::new() } else { format!(" (did you mean {}?)", near.join(" or ")) };
                problems
                    .push(Problem::Other { name: name.into(), what: format!("the program has no such input{near}") });
                continue;
            };
            for (p, taker, (at, feed)) in known {
                let own = full(taker, feed);
                if own != *name && file.get(&own).is_some() {
                    continue;
                }
                if let Some(groups) = groups[p].as_ref().filter(|groups| groups.axis(feed).is_some()) {
                    match given(&view, RaggedFeed { feed, feeds: programs[p].feeds, groups })? {
                        Ok(given) => drop(ragged[p].insert(at, given)),
                        Err(what) => problems.push(Problem::Other { name: own, what }),
                    }
                    continue;
                }
                if let Some(problem) = mismatch(&view, &own, feed) {
                    problems.push(problem);
                    continue;
                }
                match value(&view, &view.data()?, feed) {
                    Ok(bytes) => all[p].values[at] = Some(bytes),
                    Err(what) => problems.push(Problem::Other { name: own, what }),
                }
            }
        }
        if problems.is_empty() {
            for ((taker, inputs), (groups, given)) in programs.iter().zip(&mut all).zip(groups.iter().zip(&ragged)) {
                let Some(groups) = groups else { continue };
                if let Err(what) = inputs.divide(taker, groups, given) {
                    problems.push(Problem::Other { name: "rows of ragged axes".into(), what });
                }
            }
        }
        if !problems.is_empty() {
            let list = programs.iter().flat_map(|taker| taker.used().map(move |(_, feed)| (taker, feed)));
            let list: Vec<_> = list.map(|(taker, feed)| format!("{} {}", full(taker, feed), feed.ty)).collect();
            return Err(DataError::Mismatch {
                what: format!("the inputs in {} do not fit the program", path.display()),
                problems,
                help: Some(format!("the program takes {}", list.join(", "))),
            });
        }
        Ok(all)
    }

    /// Rows of ragged feeds by data groups, if the file gives any input that these hang together with.
    fn divide(&mut self, taker: &Taker<'_>, groups: &Groups, given: &BTreeMap<usize, Given>) -> Result<(), String> {
        let parts = || taker.feeds.iter().enumerate().filter(|(_, feed)| groups.is_part(feed));
        if given.is_empty() && parts().all(|(at, _)| self.values[at].is_none()) {
            return Ok(());
        }
        let none = Given { rows: 0, bytes: vec![] };
        let mut found = Parts::default();
        for (at, feed) in parts() {
            let axis = groups.axis(feed);
            match (axis, &self.values[at]) {
                (Some(_), _) => {
                    let Given { rows, bytes } = given.get(&at).unwrap_or(&none);
                    found.add(feed, axis, *rows, bytes)?;
                }
                (None, Some(bytes)) => found.add(feed, axis, feed.ty.dims.first().map_or(1, |d| d.size), bytes)?,
                (None, None) => {}
            }
        }
        let owned = groups.rows(groups.samples, &found)?;
        for (at, feed) in parts() {
            let Some(axis) = groups.axis(feed) else { continue };
            let bytes = &given.get(&at).unwrap_or(&none).bytes;
            let padded = groups.padded(feed, bytes, owned.get(&axis.axis).unwrap_or(&Rows::default()))?;
            self.values[at] = Some(padded.into());
        }
        Ok(())
    }

    /// By feed.
    pub fn given(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.values.iter().map(Option::as_deref)
    }

    pub fn get(&self, feed: usize) -> Option<&[u8]> {
        self.values.get(feed)?.as_deref()
    }

    /// The values of a feed, to keep.
    pub fn whole(&self, feed: usize) -> Option<Arc<[u8]>> {
        self.values.get(feed)?.clone()
    }

    /// The values of a feed at a step, counted from 0 at the beginning of the first run.
    pub fn at(&self, feed: usize, step: u64) -> Result<Option<Arc<[u8]>>, DataError> {
        match &self.replay {
            Some((replay, program)) if self.get(feed).is_some() => replay.at(step, *program, feed),
            _ => Ok(self.whole(feed)),
        }
    }
}

/// Why a tensor of the file is none for a feed, which is called `name` in messages.
fn mismatch(view: &TensorView<'_>, name: &str, feed: &Feed) -> Option<Problem> {
    let (name, want, have) = (name.to_owned(), feed.ty.to_string(), view.text());
    if view.shape != feed.ty.sizes().as_slice() {
        return Some(Problem::Shape { name, want, have });
    }
    (!converts(view.dtype, feed.ty.dtype)).then_some(Problem::Type { name, want, have })
}

/// The rows of a tensor for a ragged feed.
fn given(view: &TensorView<'_>, of: RaggedFeed<'_>) -> Result<Result<Given, String>, DataError> {
    let feed = of.feed;
    let rows = match ragged_rows(view.dtype, view.shape, of) {
        Ok(rows) => rows,
        Err(what) => return Ok(Err(what)),
    };
    let mut bytes = vec![0; rows * of.groups.row(feed).bytes()];
    let converted = convert(view.dtype, &view.data()?, feed.ty.dtype, &mut bytes).map_err(|e| e.to_string());
    Ok(converted.and_then(|()| stray(feed, &bytes).map_or(Ok(()), Err)).map(|()| Given { rows, bytes }))
}

/// Its values in the feed's type.
fn value(view: &TensorView<'_>, data: &[u8], feed: &Feed) -> Result<Arc<[u8]>, String> {
    let mut bytes = vec![0; feed.ty.bytes()];
    convert(view.dtype, data, feed.ty.dtype, &mut bytes).map_err(|e| e.to_string())?;
    stray(feed, &bytes).map_or_else(|| Ok(bytes.into()), Err)
}

/// What is wrong with the numbers of a feed that picks rows, if they do not.
pub fn stray(feed: &Feed, bytes: &[u8]) -> Option<String> {
    let Source::Indices(indices) = feed.source else { return None };
    let (at, value) = out_of_range(feed.ty.dtype, bytes, indices)?;
    let ignored = indices.ignored.map_or(String::new(), |ignored| format!(", or {ignored}"));
    Some(format!(
        "number {at} is {value}; it picks one of {} rows: 0 to {}{ignored}",
        indices.rows,
        indices.rows.saturating_sub(1)
    ))
}
