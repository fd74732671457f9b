//! `--save`: checkpoints of a running world.

use std::path::{Path, PathBuf};

use data::Position;
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
}

impl<'a> Saver<'a> {
    /// None if nothing is to be saved.
    pub fn new(args: &'a Args, hash: PlanHash, start: Start, batch: u64) -> Option<Self> {
        Some(Self { args, folder: args.save.as_deref()?, hash, start, batch })
    }

    /// Whether a checkpoint is due after this step.
    pub fn due(&self, step: u64) -> bool {
        self.args.save_every.is_some_and(|every| step.is_multiple_of(every))
    }

    pub fn save(&self, world: &World, step: u64) -> Result<PathBuf, Failure> {
        let plan = world.plan();
        let position = Position {
            step,
            samples: self.start.samples + (step - self.start.step) * self.batch,
            seed: plan.header.seed,
            plan_hash: self.hash.to_string(),
            model: plan.header.model.to_string(),
            preset: plan.header.preset.to_string(),
        };
        Ok(data::save(self.folder, &position, &world.parameters(), &world.states())?)
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
