//! The values that a run begins with: parameters and state of every rank, from weights, a checkpoint or initialisers.

use std::path::{Path, PathBuf};
use std::thread;

use data::{Checkpoint, DataError, Records, Share, Weights, initialise};
use plan::{BufferId, Layout, Parameter, Plan, PlanHash, State, StateInit};
use runtime_core::Executor;
use types::{Init, TensorType};

use crate::agreement::{self, Answer};
use crate::cli::{Args, Resume};
use crate::failure::Failure;
use crate::progress::{count, plural};
use crate::world::{World, is_lasting};

/// Where the run begins.
#[derive(Clone)]
pub struct Start {
    pub step: u64,
    /// Samples that were used before.
    pub samples: u64,
    /// The checkpoint, if it is one.
    pub from: Option<PathBuf>,
    /// The published folder that the model came from, if it came from one.
    pub origin: Option<data::Origin>,
}

/// Where values come from.
enum Origin {
    Initialisers,
    Weights(Weights),
    Checkpoint(Checkpoint),
}

/// Fills parameters and state of all ranks.
pub fn fill(args: &Args, world: &mut World, hash: PlanHash, data: Option<&Records>) -> Result<Start, Failure> {
    let plan = world.plan().clone();
    let (origin, start, told) = origin(args, &plan, hash, data)?;
    agreement::ask(world.together(), "open the weights or the checkpoint", || answers(args, &origin, &start))?;
    let (origin, plan) = (&origin, &*plan);
    thread::scope(|scope| {
        let ranks = world.executors_mut();
        let ranks: Vec<_> = ranks.map(|e| scope.spawn(move || fill_rank(e, plan, origin))).collect();
        let panicked = |_| Err(Failure::new("the thread that fills a rank's parameters panicked"));
        ranks.into_iter().try_for_each(|rank| rank.join().unwrap_or_else(panicked))
    })?;
    told.iter().for_each(|line| world.note(line));
    Ok(start)
}

/// Opens what is asked for and compares it with the plan; gives the lines to be said when all has gone well, too.
fn origin(
    args: &Args,
    plan: &Plan,
    hash: PlanHash,
    data: Option<&Records>,
) -> Result<(Origin, Start, Vec<String>), Failure> {
    let m = &plan.manifest;
    if let Some(path) = resumed(args)? {
        let (checkpoint, damaged) = data::latest(path)?;
        let checkpoint = checkpoint.with_forms(&m.parameters);
        checkpoint.check(
            m.parameters.iter().map(|p| (p.name.as_str(), &p.ty)),
            m.states.iter().filter(|s| is_lasting(s)).map(|s| (s.name.as_str(), &s.ty)),
        )?;
        let at = &checkpoint.position;
        let mut told: Vec<_> = damaged.iter().map(|d| format!("passed over a damaged checkpoint: {d}")).collect();
        told.push(format!("resumed at step {} from {}", at.step, checkpoint.folder.display()));
        if at.plan_hash != hash.to_string() {
            told.push("that checkpoint was written by another plan; the run will differ from an unbroken one".into());
        }
        if at.seed != plan.header.seed {
            told.push(format!("that run had seed {}, and this plan has seed {}", at.seed, plan.header.seed));
        }
        told.extend(checkpoint.check_configs(&plan.header.configs)?);
        told.extend(records(args, &checkpoint, data)?);
        if args.weights.is_some() {
            told.push("--weights is not read: the run goes on from its checkpoint".into());
        }
        let start = Start {
            step: at.step,
            samples: at.samples,
            from: Some(checkpoint.folder.clone()),
            origin: Some(checkpoint.origin()),
        };
        return Ok((Origin::Checkpoint(checkpoint), start, told));
    }
    let values: usize = m.parameters.iter().map(|p| p.ty.elements()).sum();
    let all = format!("{} ({} values)", plural(m.parameters.len(), "parameter"), count(values as f64));
    let start = Start { step: 0, samples: 0, from: None, origin: None };
    if let Some(path) = &args.weights {
        let weights = Weights::open(path, &m.parameters)?;
        let mut told = weights.check(&m.parameters, &plan.header.configs)?;
        told.push(format!("{all} from {}", path.display()));
        let start = Start { origin: Some(weights.origin().clone()), ..start };
        return Ok((Origin::Weights(weights), start, told));
    }
    let told = format!("{all} from the initialisers, seed {}", plan.header.seed);
    Ok((Origin::Initialisers, start, vec![told]))
}

/// What all processes must have opened alike.
fn answers(args: &Args, origin: &Origin, start: &Start) -> Result<Vec<Answer>, Failure> {
    Ok(match (origin, &args.weights) {
        (Origin::Checkpoint(checkpoint), _) => {
            let (step, samples, content) = (start.step, start.samples, &checkpoint.content);
            let text = format!("step {step} in {} with the fingerprint {content}", checkpoint.folder.display());
            vec![Answer::new("checkpoints to resume from", format!("{step} {samples} {content}"), text)]
        }
        (Origin::Weights(weights), Some(path)) => vec![Answer::of_weights(weights, path)?],
        _ => Vec::new(),
    })
}

/// Where to go on, if the run is not to begin.
fn resumed(args: &Args) -> Result<Option<&Path>, Failure> {
    match (&args.resume, &args.save) {
        (Some(Resume::From(path)), _) => Ok(Some(path)),
        (Some(Resume::Auto), Some(folder)) => Ok(data::has_checkpoints(folder)?.then_some(folder.as_path())),
        _ => Ok(None),
    }
}

/// Compares the records of the checkpoint's run with those of this one; gives what there is to tell.
fn records(args: &Args, from: &Checkpoint, data: Option<&Records>) -> Result<Option<String>, Failure> {
    let Some(then) = &from.position.data else { return Ok(None) };
    let theirs = format!("{} of {}", plural(then.records, "record"), then.path);
    match data {
        Some(now) if now.records == then.records => Ok(None),
        Some(now) => Ok(Some(format!(
            "warning: that run had {theirs}, and this one has {} of {}: records come in another order",
            now.records, now.path
        ))),
        None if args.resume_without_data => Ok(Some(format!("that run had {theirs}, and this one goes on without"))),
        None => {
            let what = format!("{}: its run had {theirs}, and this one has no --data", from.folder.display());
            Err(Failure::new(what).help("add --data; or --resume-without-data, if that is meant"))
        }
    }
}

/// Fills what one rank holds.
fn fill_rank(executor: &mut Executor, plan: &Plan, origin: &Origin) -> Result<(), Failure> {
    let (mesh, seed, class) = (&plan.header.mesh, plan.header.seed, executor.class());
    let coordinates = mesh.coordinates(executor.rank());
    let share = |ty: &TensorType, layout: &Layout| Share::new(mesh, &coordinates, ty, layout);
    let parameters = plan.manifest.parameters.iter().filter_map(|p| Some((p, p.buffer(class)?)));
    for (p, id) in parameters {
        parameter(p, &share(&p.ty, &p.layout), seed, origin, slot(executor, id)?)?;
    }
    for (s, id) in plan.manifest.states.iter().filter_map(|s| Some((s, s.buffer(class)?))) {
        let share = share(&s.ty, &s.layout);
        match (&s.init, origin) {
            (StateInit::Coordinate(axis), _) => {
                let at = mesh.position(axis).map_or(0, |p| coordinates[p]);
                let bytes = (at as i64).to_le_bytes();
                if let Some(to) = slot(executor, id)?.first_chunk_mut() {
                    *to = bytes;
                }
            }
            // The executor makes it before the first step.
            (StateInit::Prepared, _) => {}
            (StateInit::Parameter, _) => as_parameter(executor, plan, s, id)?,
            (_, Origin::Checkpoint(checkpoint)) => checkpoint.state(&s.name, &share, slot(executor, id)?)?,
            // Optimisers begin with as many zeros as there are parameters, twice: pages that are zero stay untouched.
            (StateInit::Value(Init::Zeros), _) if executor.begins_zeroed() => {}
            (StateInit::Value(init), _) => initialise(init, seed, &s.name, &share, slot(executor, id)?),
        }
    }
    Ok(())
}

fn parameter(p: &Parameter, share: &Share, seed: u64, origin: &Origin, out: &mut [u8]) -> Result<(), DataError> {
    match origin {
        Origin::Initialisers => initialise(&p.init, seed, &p.name, share, out),
        Origin::Weights(weights) => weights.load(p, share, out)?,
        Origin::Checkpoint(checkpoint) => checkpoint.parameter(&p.name, share, out)?,
    }
    Ok(())
}

/// Fills a state that follows a parameter, which the same rank holds in the same layout.
fn as_parameter(executor: &mut Executor, plan: &Plan, state: &State, id: BufferId) -> Result<(), Failure> {
    let parameter = state.of.and_then(|of| plan.manifest.parameters.get(of.index()));
    let missing = || Failure::new(format!("state `{}` follows a parameter that the rank does not hold", state.name));
    let (p, from) = parameter.and_then(|p| Some((p, p.buffer(executor.class())?))).ok_or_else(missing)?;
    let values = executor.read(from)?.ok_or_else(missing)?.to_vec();
    data::convert_values(p.ty.dtype, &values, state.ty.dtype, slot(executor, id)?)
        .map_err(|e| Failure::new(format!("state `{}` cannot begin as `{}`: {e}", state.name, p.name)))
}

fn slot(executor: &mut Executor, id: BufferId) -> Result<&mut [u8], Failure> {
    // The plan was verified: each parameter and state has its buffer.
    executor.write(id)?.ok_or_else(|| Failure::new("the plan has a value without memory"))
}
