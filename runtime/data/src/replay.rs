//! `--inputs DIR`: one file of inputs a step, draws included, so that a run of another system can be repeated.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use plan::Feed;
use types::Ragged;

use crate::{DataError, Inputs, Taker};

/// Files that are held at a time: ranks may be a step apart.
const HELD: usize = 2;

/// The files of a folder, in the order of the numbers in their names, and what they have for the programs of a run.
pub struct Replay {
    files: Vec<PathBuf>,
    programs: Vec<Program>,
    /// By feed of each program: whether the first file gives it. All do, or none.
    given: Vec<Vec<bool>>,
    read: Mutex<BTreeMap<usize, Arc<Vec<Inputs>>>>,
}

struct Program {
    name: String,
    feeds: Vec<Feed>,
    used: Vec<bool>,
    ragged: Vec<Ragged>,
}

impl Program {
    fn taker(&self) -> Taker<'_> {
        Taker { program: &self.name, feeds: &self.feeds, used: self.used.clone(), ragged: &self.ragged }
    }
}

impl Replay {
    /// Lists the folder and reads its first file.
    pub fn open(folder: &Path, programs: &[Taker<'_>]) -> Result<(Arc<Self>, Vec<Inputs>), DataError> {
        let unread = |error| DataError::File { path: folder.into(), error };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(unread)? {
            let path = entry.map_err(unread)?.path();
            if path.extension().is_some_and(|ending| ending == "safetensors") {
                files.push(path);
            }
        }
        files.sort_by_cached_key(|path| order(&path.file_name().unwrap_or_default().to_string_lossy()));
        let Some(first) = files.first() else {
            return Err(DataError::format(
                folder,
                "no file of inputs: `1.safetensors`, `2.safetensors` .. are expected",
            ));
        };
        let inputs = Inputs::of_programs(first, programs)?;
        let given = inputs.iter().map(|inputs| inputs.given().map(|values| values.is_some()).collect()).collect();
        let programs = programs.iter().map(|taker| Program {
            name: taker.program.into(),
            feeds: taker.feeds.to_vec(),
            used: taker.used.clone(),
            ragged: taker.ragged.to_vec(),
        });
        let read = Mutex::new(BTreeMap::from([(0, Arc::new(inputs.clone()))]));
        Ok((Arc::new(Self { files, programs: programs.collect(), given, read }), inputs))
    }

    /// What the file of a step, counted from 0, gives a feed of a program.
    pub fn at(&self, step: u64, program: usize, feed: usize) -> Result<Option<Arc<[u8]>>, DataError> {
        let inputs = self.step(step)?;
        Ok(inputs.get(program).and_then(|inputs| inputs.whole(feed)))
    }

    fn step(&self, step: u64) -> Result<Arc<Vec<Inputs>>, DataError> {
        let found = usize::try_from(step).ok().filter(|at| *at < self.files.len());
        let at = found.ok_or_else(|| DataError::Refused {
            what: format!("step {} has no file of inputs: there are {}", step + 1, self.files.len()),
            help: "the first file is for step 1: give fewer --steps, or more files".into(),
        })?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inputs) = read.get(&at) {
            return Ok(inputs.clone());
        }
        let takers: Vec<Taker<'_>> = self.programs.iter().map(Program::taker).collect();
        let inputs = Inputs::of_programs(&self.files[at], &takers)?;
        for ((program, inputs), given) in self.programs.iter().zip(&inputs).zip(&self.given) {
            let differs = inputs.given().zip(given).position(|(values, given)| values.is_some() != *given);
            if let Some(feed) = differs.and_then(|i| program.feeds.get(i)) {
                let first = self.files[0].file_name().unwrap_or_default().to_string_lossy();
                let what = format!("only one of it and {first} has `{}`: all files give the same inputs", feed.name);
                return Err(DataError::format(&self.files[at], what));
            }
        }
        let inputs = Arc::new(inputs);
        read.insert(at, inputs.clone());
        while read.len() > HELD {
            read.pop_first();
        }
        Ok(inputs)
    }
}

/// Numbers in a name count as numbers: `step-10` comes after `step-9`.
fn order(name: &str) -> Vec<(u64, String)> {
    let mut parts = vec![];
    let mut rest = name;
    while !rest.is_empty() {
        let text = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (before, numbered) = rest.split_at(text);
        let end = numbered.find(|c: char| !c.is_ascii_digit()).unwrap_or(numbered.len());
        let (number, behind) = numbered.split_at(end);
        parts.push((0, before.to_string()));
        // Digits too many for a number stand behind all that are none.
        parts.push((number.parse().unwrap_or(if number.is_empty() { 0 } else { u64::MAX }), number.to_string()));
        rest = behind;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn files_come_in_the_order_of_their_numbers() {
        let mut names = ["step-10.safetensors", "step-9.safetensors", "a.safetensors", "step-1.safetensors", "2", "10"];
        names.sort_by_cached_key(|name| order(name));
        assert_eq!(
            names,
            ["2", "10", "a.safetensors", "step-1.safetensors", "step-9.safetensors", "step-10.safetensors"]
        );
    }
}
