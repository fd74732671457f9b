//! `--save`: checkpoints of a running world.

use std::path::{Path, PathBuf};
use std::thread::{Builder, JoinHandle};

use data::{DataError, LARGEST_FILE, Position, Snapshot};
use plan::PlanHash;

use crate::cli::Args;
use crate::failure::Failure;
use crate::values::Start;
use crate::world::World;

/// Where checkpoints go, and what they say about the run.
pub struct Saver<'a> {
    args: &'a Args,
    folder: &'a Path,
    hash: PlanHash,
    start: Start,
    /// Samples a step.
    batch: u64,
    /// One at most, so that there is one copy at most of what is saved.
    behind: Option<JoinHandle<Result<PathBuf, DataError>>>,
}

impl<'a> Saver<'a> {
    /// None if nothing is to be saved.
    pub fn new(args: &'a Args, hash: PlanHash, start: Start, batch: u64) -> Option<Self> {
        Some(Self { args, folder: args.save.as_deref()?, hash, start, batch, behind: None })
    }

    /// Whether a checkpoint is due after this step.
    pub fn due(&self, step: u64) -> bool {
        self.args.save_every.is_some_and(|every| step.is_multiple_of(every))
    }

    /// Writes a checkpoint and waits for it.
    pub fn save(&self, world: &World, step: u64) -> Result<PathBuf, Failure> {
        let (position, tensors) = (self.position(world, step), (&*world.parameters()?, &*world.states()?));
        Ok(data::save(self.folder, &position, tensors, LARGEST_FILE, world.together())?)
    }

    /// Copies what is to be saved, and writes it while the next steps run.
    pub fn save_behind(&mut self, world: &World, step: u64) -> Result<(), Failure> {
        let (position, folder) = (self.position(world, step), self.folder.to_path_buf());
        let (parameters, states) = (Snapshot::of(&world.parameters()?), Snapshot::of(&world.states()?));
        let together = world.together().clone();
        let write = move || {
            let tensors = (&*parameters.pieces(), &*states.pieces());
            data::save(&folder, &position, tensors, LARGEST_FILE, &together)
        };
        let thread = Builder::new().name("save".into()).spawn(write);
        self.behind = Some(thread.map_err(|e| Failure::new(format!("a thread could not be started: {e}")))?);
        Ok(())
    }

    /// The folder of the checkpoint that was being written, if it is finished now; or once it is, with `wait`.
    pub fn written(&mut self, wait: bool) -> Result<Option<PathBuf>, Failure> {
        let Some(thread) = self.behind.take_if(|t| wait || t.is_finished()) else { return Ok(None) };
        let panicked = |_| Err(Failure::new("the thread that writes a checkpoint panicked"));
        thread.join().map_or_else(panicked, |written| Ok(Some(written?)))
    }

    fn position(&self, world: &World, step: u64) -> Position {
        let plan = world.plan();
        Position {
            step,
            samples: self.start.samples + (step - self.start.step) * self.batch,
            seed: plan.header.seed,
            plan_hash: self.hash.to_string(),
            model: plan.header.model.to_string(),
            preset: plan.header.preset.to_string(),
        }
    }

    /// The command that goes on from the saved step.
    pub fn resume_command(&self) -> String {
        let mut command = format!("mmrun {} --resume {}", self.args.plan.display(), self.folder.display());
        let more = [("data", &self.args.data), ("inputs", &self.args.inputs), ("save", &self.args.save)];
        for (flag, path) in more {
            command.extend(path.iter().map(|p| format!(" --{flag} {}", p.display())));
        }
        command + " --steps N"
    }
}
