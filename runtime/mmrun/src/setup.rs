//! From files to an executor that is ready for its first step.

use std::path::Path;
use std::sync::Arc;

use data::{Checkpoint, Weights, initialise};
use device::{CpuKernels, Mapped};
use plan::{BufferId, Parameter, Plan, PlanFile, PlanHash, StateInit};
use runtime_core::{Executor, Options};

use crate::cli::Args;
use crate::failure::Failure;
use crate::progress::{count, note, plural};

/// Where the run begins.
pub struct Start {
    pub step: u64,
    /// Samples that were used before.
    pub samples: u64,
}

pub fn open<'a>(path: &Path, image: &'a [u8]) -> Result<PlanFile<'a>, Failure> {
    PlanFile::open(image).map_err(|e| {
        let failure = Failure::new(format!("{}: {e}", path.display()));
        match e {
            plan::ReadError::NotAPlan if path.extension().is_some_and(|e| e == "mm") => {
                failure.help(format!("compile it first: mmc compile {}", path.display()))
            }
            _ => failure.help("compile the plan again, with the `mmc` of this version"),
        }
    })
}

/// Loads a plan and its kernels; its values come with [`values`].
pub fn executor(args: &Args) -> Result<(Executor, PlanHash), Failure> {
    let image = Mapped::open(&args.plan).map_err(|e| Failure::file(&args.plan, &e))?;
    let file = open(&args.plan, &image)?;
    let world = file.plan.header.world();
    if world != 1 {
        let mesh = file.plan.header.mesh.axes.iter().filter(|a| a.size > 1);
        let mesh: Vec<_> = mesh.map(|a| format!("{}={}", a.name, a.size)).collect();
        let message = format!("the plan is for {world} ranks ({}), and this run has 1", mesh.join(", "));
        return Err(Failure::new(message).help("compile the plan with all sizes of the mesh at 1"));
    }
    let kernels = CpuKernels::load(&file.plan.header, &file.plan.kernels, file.object)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.map_or(cores, usize::from);
    let options = Options { threads, poison: args.poison, trace: args.trace.is_some(), ..Options::default() };
    Ok((Executor::new(Arc::new(file.plan), kernels, None, &options)?, file.hash))
}

/// Fills parameters and state.
pub fn values(args: &Args, executor: &mut Executor, hash: PlanHash) -> Result<Start, Failure> {
    let plan = executor.plan().clone();
    if let Some(path) = &args.resume {
        let (checkpoint, damaged) = data::latest(path)?;
        damaged.iter().for_each(|d| note(&format!("passed over a damaged checkpoint: {d}")));
        resume(executor, &plan, &checkpoint)?;
        let at = &checkpoint.position;
        note(&format!("resumed at step {} from {}", at.step, checkpoint.folder.display()));
        if at.plan_hash != hash.to_string() {
            note("that checkpoint was written by another plan; the run will differ from an unbroken one");
        }
        if at.seed != plan.header.seed {
            note(&format!("that run had seed {}, and this plan has seed {}", at.seed, plan.header.seed));
        }
        return Ok(Start { step: at.step, samples: at.samples });
    }
    let values: usize = plan.manifest.parameters.iter().map(|p| p.ty.elements()).sum();
    let values = count(values as f64);
    match &args.weights {
        Some(path) => {
            let weights = Weights::open(path, &plan.manifest.parameters)?;
            weights.check(&plan.manifest.parameters)?;
            for parameter in &plan.manifest.parameters {
                weights.load(parameter, slot(executor, buffer(executor, parameter))?)?;
            }
            let n = plural(plan.manifest.parameters.len(), "parameter");
            note(&format!("{n} ({values} values) from {}", path.display()));
        }
        None => {
            for p in &plan.manifest.parameters {
                initialise(&p.init, plan.header.seed, &p.name, &p.ty, slot(executor, buffer(executor, p))?);
            }
            let (n, seed) = (plural(plan.manifest.parameters.len(), "parameter"), plan.header.seed);
            note(&format!("{n} ({values} values) from the initialisers, seed {seed}"));
        }
    }
    for state in &plan.manifest.states {
        let id = state.buffer(executor.class());
        match &state.init {
            StateInit::Value(init) => {
                initialise(init, plan.header.seed, &state.name, &state.ty, slot(executor, id)?);
            }
            StateInit::Coordinate(axis) => {
                let mesh = &plan.header.mesh;
                let at = mesh.position(axis).map_or(0, |p| mesh.coordinates(0)[p]);
                slot(executor, id)?.copy_from_slice(&(at as i64).to_ne_bytes());
            }
            StateInit::Parameter(name) => {
                let parameter = plan.manifest.parameter(name);
                let source = parameter.and_then(|p| Some((p, executor.read(buffer(executor, p)?)?.to_vec())));
                let (p, values) = source.ok_or_else(|| Failure::new(format!("there is no parameter `{name}`")))?;
                data::convert_values(p.ty.dtype, &values, state.ty.dtype, slot(executor, id)?)
                    .map_err(|e| Failure::new(format!("state `{}` cannot begin as `{name}`: {e}", state.name)))?;
            }
        }
    }
    Ok(Start { step: 0, samples: 0 })
}

fn resume(executor: &mut Executor, plan: &Plan, checkpoint: &Checkpoint) -> Result<(), Failure> {
    let m = &plan.manifest;
    checkpoint.check(
        m.parameters.iter().map(|p| (p.name.as_str(), &p.ty)),
        m.states.iter().map(|s| (s.name.as_str(), &s.ty)),
    )?;
    for p in &m.parameters {
        checkpoint.parameter(&p.name, &p.ty, slot(executor, buffer(executor, p))?)?;
    }
    for s in &m.states {
        let id = s.buffer(executor.class());
        checkpoint.state(&s.name, &s.ty, slot(executor, id)?)?;
    }
    Ok(())
}

fn buffer(executor: &Executor, parameter: &Parameter) -> Option<BufferId> {
    parameter.buffer(executor.class())
}

fn slot(executor: &mut Executor, id: Option<BufferId>) -> Result<&mut [u8], Failure> {
    // The plan was verified: each parameter and state has its buffer in the one class there is.
    id.and_then(|id| executor.write(id)).ok_or_else(|| Failure::new("the plan has a value without memory"))
}
