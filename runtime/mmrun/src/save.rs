//! `--save`: checkpoints of a running world.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use data::{Begin, DataError, Folder, Pieces, Position, Pretrained, Records, Snapshot, Together};
use plan::PlanHash;

use crate::cli::{Args, Resume};
use crate::failure::Failure;
use crate::values::Start;
use crate::world::{World, is_lasting};

/// How many checkpoints stay without `--keep`.
const KEEP: u32 = 3;

/// Where checkpoints go, and what they say about the run.
pub struct Saver<'a> {
    args: &'a Args,
    folder: Arc<Folder>,
    model: Arc<Pretrained>,
    hash: PlanHash,
    start: Start,
    /// Samples a step.
    batch: u64,
    data: Option<Records>,
    /// One at most, so that there is one copy at most of what is saved.
    behind: Option<(u64, JoinHandle<Written>)>,
    /// The newest checkpoint, and its step.
    last: Option<(u64, PathBuf)>,
}

/// How a save went.
pub struct Written {
    pub step: u64,
    /// The checkpoint.
    pub folder: Result<PathBuf, DataError>,
    /// Why older ones are still there.
    pub unremoved: Option<DataError>,
}

/// Takes the folder of `--save` for this run; None if nothing is to be saved.
pub fn folder(args: &Args, world: &World) -> Result<Option<Folder>, Failure> {
    let Some(path) = &args.save else { return Ok(None) };
    let goes_on = match &args.resume {
        Some(Resume::Auto) => true,
        Some(Resume::From(from)) => is_of(from, path),
        None => false,
    };
    let begin = match (goes_on, args.save_over) {
        (true, _) => Begin::GoOn,
        (false, true) => Begin::Over,
        (false, false) => Begin::Fresh,
    };
    Ok(Some(Folder::open(path, begin, needed(&Pretrained::default(), world), world.together())?))
}

/// About how many bytes a checkpoint takes.
fn needed(model: &Pretrained, world: &World) -> u64 {
    let manifest = &world.plan().manifest;
    let states = manifest.states.iter().filter(|s| is_lasting(s)).map(|s| (s.name.as_str(), &s.ty));
    model.needed(manifest.parameters.iter().map(|p| (p.name.as_str(), &p.ty)), states)
}

/// How many checkpoints stay.
fn keep(args: &Args) -> usize {
    args.keep.unwrap_or(KEEP) as usize
}

/// Whether a path is a folder of checkpoints, or a checkpoint of it.
fn is_of(from: &Path, folder: &Path) -> bool {
    let (Ok(from), Ok(folder)) = (from.canonicalize(), folder.canonicalize()) else { return false };
    from == folder || from.parent() == Some(&folder)
}

impl<'a> Saver<'a> {
    pub fn new(
        args: &'a Args,
        (folder, world): (Folder, &World),
        hash: PlanHash,
        start: Start,
        (batch, data): (u64, Option<Records>),
    ) -> Result<Self, Failure> {
        let plan = world.plan();
        let (parameters, configs) = (&plan.manifest.parameters, &plan.header.configs);
        let model = Pretrained::new(start.origin.as_ref(), parameters, configs, args.save_dtype)?;
        let folder = folder.needing(needed(&model, world));
        // A checkpoint that the run begins with need not be written again.
        let own = start.from.as_ref().filter(|from| is_of(from, folder.path()));
        let last = own.map(|from| (start.step, from.clone()));
        let (folder, model) = (Arc::new(folder), Arc::new(model));
        Ok(Self { args, folder, model, hash, start, batch, data, behind: None, last })
    }

    /// Finds a disk that is full before the first step.
    pub fn check_room(&self, together: &Together) -> Result<(), Failure> {
        Ok(self.folder.check_room(self.start.step, keep(self.args), together)?)
    }

    /// Whether a checkpoint is due after this step.
    pub fn due(&self, step: u64) -> bool {
        self.args.save_every.is_some_and(|every| step.is_multiple_of(every))
    }

    /// Copies what is to be saved, and writes it while the next steps run. Where that cannot be, it is written at once.
    pub fn save_behind(&mut self, world: &World, step: u64) -> Option<Written> {
        let copies = world.parameters().and_then(|p| Ok((Snapshot::of(&p), Snapshot::of(&world.states()?))));
        let Ok((parameters, states)) = copies else { return Some(self.save(world, step)) };
        let (save, together) = (self.task(world, step), world.together().clone());
        let write = move || save.write((&parameters.pieces(), &states.pieces()), &together);
        match Builder::new().name("save".into()).spawn(write) {
            Ok(thread) => self.behind = Some((step, thread)),
            Err(_) => return Some(self.save(world, step)),
        }
        None
    }

    /// How the save behind the steps went, if it is finished now; or once it is, with `wait`.
    pub fn written(&mut self, wait: bool) -> Option<Written> {
        let (step, thread) = self.behind.take_if(|(_, t)| wait || t.is_finished())?;
        let written = thread.join().unwrap_or_else(|_| {
            let panicked = DataError::format(self.folder.path(), "the thread that writes a checkpoint panicked");
            Written { step, folder: Err(panicked), unremoved: None }
        });
        self.note(&written);
        Some(written)
    }

    /// Writes a checkpoint of this step, unless there is one.
    pub fn finish(&mut self, world: &World, step: u64) -> Option<Written> {
        let is_saved = self.last.as_ref().is_some_and(|(last, _)| *last == step);
        (!is_saved).then(|| self.save(world, step))
    }

    fn save(&mut self, world: &World, step: u64) -> Written {
        let save = self.task(world, step);
        let tensors = world.parameters().and_then(|parameters| Ok((parameters, world.states()?)));
        let written = match tensors {
            Ok((parameters, states)) => save.write((&parameters, &states), world.together()),
            Err(failure) => {
                let folder = Err(DataError::format(self.folder.path(), failure.message()));
                Written { step, folder, unremoved: None }
            }
        };
        self.note(&written);
        written
    }

    fn note(&mut self, written: &Written) {
        if let Ok(folder) = &written.folder {
            self.last = Some((written.step, folder.clone()));
        }
    }

    fn task(&self, world: &World, step: u64) -> Task {
        let header = &world.plan().header;
        let position = Position {
            step,
            samples: self.start.samples + (step - self.start.step) * self.batch,
            seed: header.seed,
            plan_hash: self.hash.to_string(),
            model: header.model.to_string(),
            preset: header.preset.to_string(),
            data: self.data.clone(),
        };
        Task { folder: self.folder.clone(), model: self.model.clone(), position, keep: keep(self.args) }
    }

    /// The newest checkpoint.
    pub fn last(&self) -> Option<&Path> {
        self.last.as_ref().map(|(_, folder)| folder.as_path())
    }

    /// How to go on from the last checkpoint.
    pub fn how_to_go_on(&self) -> String {
        if self.args.resume == Some(Resume::Auto) && self.args.until.is_some() {
            return "go on with the same command line".into();
        }
        let path = |path: &Path| quoted(&path.to_string_lossy());
        let mut command = format!("go on with: mmrun {} --resume {}", path(&self.args.plan), path(self.folder.path()));
        let more = [("data", &self.args.data), ("inputs", &self.args.inputs), ("save", &self.args.save)];
        for (flag, given) in more {
            command.extend(given.iter().map(|p| format!(" --{flag} {}", path(p))));
        }
        command.extend(self.args.save_dtype.map(|dtype| format!(" --save-dtype {dtype}")));
        command + &self.args.until.map_or(" --steps N".into(), |until| format!(" --until {until}"))
    }
}

/// One checkpoint to be written.
struct Task {
    folder: Arc<Folder>,
    model: Arc<Pretrained>,
    position: Position,
    keep: usize,
}

impl Task {
    fn write(self, tensors: (&[Pieces<'_>], &[Pieces<'_>]), together: &Together) -> Written {
        let Self { folder, model, position, keep } = self;
        let saved = folder.save(&position, tensors, (&model, keep), together);
        let prune = saved.is_ok() && together.is_first();
        let unremoved = if prune { folder.prune(position.step, keep).err() } else { None };
        Written { step: position.step, folder: saved, unremoved }
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted() {
        assert_eq!(quoted("a/b-1.bin"), "a/b-1.bin");
        assert_eq!(quoted("it's here"), r"'it'\''s here'");
    }
}
