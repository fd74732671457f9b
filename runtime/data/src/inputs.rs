//! `--inputs`: feeds and draws by name from one safetensors file, the same at every step.

use std::path::Path;
use std::sync::Arc;

use plan::{Feed, Source};
use types::nearest;

use crate::convert::{convert, converts, out_of_range};
use crate::{DataError, Problem, TensorFile};

#[derive(Clone)]
pub struct Inputs {
    /// By feed, whole and in the feed's type; none for feeds that the file does not give.
    values: Vec<Option<Arc<[u8]>>>,
}

impl Inputs {
    /// Without a file: nothing is given.
    pub fn none(feeds: &[Feed]) -> Self {
        Self { values: vec![None; feeds.len()] }
    }

    /// Reads all that the file has; `used` tells which feeds the run takes.
    pub fn open(path: &Path, feeds: &[Feed], used: impl Fn(usize) -> bool) -> Result<Self, DataError> {
        let file = TensorFile::open(path)?;
        let mut problems = Vec::new();
        let mut values = vec![None; feeds.len()];
        for name in file.names() {
            let known = feeds.iter().enumerate().find(|(i, f)| f.name == *name && used(*i));
            let (Some((at, feed)), Some(view)) = (known, file.get(name)) else {
                let names = feeds.iter().enumerate().filter(|(i, _)| used(*i)).map(|(_, f)| f.name.as_str());
                let near = nearest(name, names);
                let near =
                    if near.is_empty() { String::new() } else { format!(" (did you mean {}?)", near.join(" or ")) };
                problems
                    .push(Problem::Other { name: name.into(), what: format!("the program has no such input{near}") });
                continue;
            };
            let (name, want, have) = (name.to_string(), feed.ty.to_string(), view.text());
            if view.shape != feed.ty.sizes().as_slice() {
                problems.push(Problem::Shape { name, want, have });
                continue;
            }
            if !converts(view.dtype, feed.ty.dtype) {
                problems.push(Problem::Type { name, want, have });
                continue;
            }
            let mut bytes = vec![0; feed.ty.bytes()];
            match convert(view.dtype, &view.data()?, feed.ty.dtype, &mut bytes) {
                Ok(()) => match stray(feed, &bytes) {
                    Some(what) => problems.push(Problem::Other { name, what }),
                    None => values[at] = Some(bytes.into()),
                },
                Err(e) => problems.push(Problem::Other { name, what: e.to_string() }),
            }
        }
        if !problems.is_empty() {
            let list: Vec<_> = feeds
                .iter()
                .enumerate()
                .filter(|(i, _)| used(*i))
                .map(|(_, f)| format!("{} {}", f.name, f.ty))
                .collect();
            return Err(DataError::Mismatch {
                what: format!("the inputs in {} do not fit the program", path.display()),
                problems,
                help: Some(format!("the program takes {}", list.join(", "))),
            });
        }
        Ok(Self { values })
    }

    pub fn get(&self, feed: usize) -> Option<&[u8]> {
        self.values.get(feed)?.as_deref()
    }
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
