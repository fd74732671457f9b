//! `--inputs`: feeds and draws by name from one safetensors file, the same at every step.

use std::path::Path;

use plan::Feed;

use crate::convert::{convert, converts};
use crate::near::nearest;
use crate::{DataError, Problem, TensorFile};

pub struct Inputs {
    /// By feed, in the feed's type; none for feeds that the file does not give.
    values: Vec<Option<Vec<u8>>>,
}

impl Inputs {
    /// Without a file: nothing is given.
    pub fn none(feeds: &[Feed]) -> Self {
        Self { values: vec![None; feeds.len()] }
    }

    /// Reads all that the file has; `used` tells which feeds the program takes.
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
            match convert(view.dtype, view.data, feed.ty.dtype, &mut bytes) {
                Ok(()) => values[at] = Some(bytes),
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
