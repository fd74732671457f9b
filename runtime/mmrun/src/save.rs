//! `--save`: checkpoints of a running executor.

use std::path::{Path, PathBuf};

use data::{Position, TensorView};
use plan::{BufferId, PlanHash};
use runtime_core::Executor;
use types::{Name, TensorType};

use crate::cli::Args;
use crate::failure::Failure;
use crate::setup::Start;

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

    pub fn save(&self, executor: &Executor, step: u64) -> Result<PathBuf, Failure> {
        let plan = executor.plan();
        let position = Position {
            step,
            samples: self.start.samples + (step - self.start.step) * self.batch,
            seed: plan.header.seed,
            plan_hash: self.hash.to_string(),
            model: plan.header.model.to_string(),
            preset: plan.header.preset.to_string(),
        };
        let class = executor.class();
        let m = &plan.manifest;
        let parameters: Vec<_> = m.parameters.iter().map(|p| Value::new(&p.name, &p.ty, p.buffer(class))).collect();
        let states: Vec<_> = m.states.iter().map(|s| Value::new(&s.name, &s.ty, s.buffer(class))).collect();
        Ok(data::save(self.folder, &position, &views(executor, &parameters)?, &views(executor, &states)?)?)
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

struct Value<'p> {
    name: &'p Name,
    ty: &'p TensorType,
    shape: Vec<usize>,
    buffer: Option<BufferId>,
}

impl<'p> Value<'p> {
    fn new(name: &'p Name, ty: &'p TensorType, buffer: Option<BufferId>) -> Self {
        Self { name, ty, shape: ty.sizes().to_vec(), buffer }
    }
}

fn views<'v>(executor: &'v Executor, values: &'v [Value<'_>]) -> Result<Vec<(String, TensorView<'v>)>, Failure> {
    let view = |v: &'v Value<'_>| {
        let bytes = v.buffer.and_then(|id| executor.read(id)).and_then(|b| b.get(..v.ty.bytes()));
        let data = bytes.ok_or_else(|| Failure::new(format!("`{}` has no memory to be saved from", v.name)))?;
        Ok((v.name.to_string(), TensorView::new(v.ty.dtype, &v.shape, data)))
    };
    values.iter().map(view).collect()
}
