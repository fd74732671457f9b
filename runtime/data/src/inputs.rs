//! `--inputs`: feeds and draws of a run's programs by name from one safetensors file, the same at every step.

use std::path::Path;
use std::sync::Arc;

use plan::{Feed, Source};
use types::nearest;

use crate::convert::{convert, converts, out_of_range};
use crate::{DataError, Problem, TensorFile, TensorView};

#[derive(Clone)]
pub struct Inputs {
    /// By feed, whole and in the feed's type; none for feeds that the file does not give.
    values: Vec<Option<Arc<[u8]>>>,
}

/// A program of a run, as far as inputs are concerned.
pub struct Taker<'a> {
    pub program: &'a str,
    pub feeds: &'a [Feed],
    /// By feed: whether the run takes it.
    pub used: Vec<bool>,
}

impl Taker<'_> {
    fn used(&self) -> impl Iterator<Item = (usize, &Feed)> {
        self.feeds.iter().enumerate().zip(&self.used).filter(|(_, used)| **used).map(|(feed, _)| feed)
    }
}

impl Inputs {
    /// Without a file: nothing is given.
    pub fn none(feeds: &[Feed]) -> Self {
        Self { values: vec![None; feeds.len()] }
    }

    /// Reads all that the file has; `used` tells which feeds the run takes.
    pub fn open(path: &Path, feeds: &[Feed], used: impl Fn(usize) -> bool) -> Result<Self, DataError> {
        let used = (0..feeds.len()).map(used).collect();
        let mut inputs = Self::of_programs(path, &[Taker { program: "", feeds, used }])?;
        Ok(inputs.pop().unwrap_or_else(|| Self::none(feeds)))
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

    /// By feed.
    pub fn given(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.values.iter().map(Option::as_deref)
    }

    pub fn get(&self, feed: usize) -> Option<&[u8]> {
        self.values.get(feed)?.as_deref()
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
