//! A run: from the plan to the last step, and what is written on the way.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::Instant;

use data::{Dataset, Feeds, Inputs};
use plan::Plan;
use runtime_core::TraceWriter;

use crate::cli::Args;
use crate::failure::Failure;
use crate::metrics::Metrics;
use crate::progress::{Progress, duration, note, plural};
use crate::results::Results;
use crate::save::Saver;
use crate::world::World;
use crate::{setup, values};

/// Viewers of traces do not open many more.
const MOST_EVENTS: usize = 1_000_000;

pub fn run(args: &Args, begin: Instant) -> Result<(), Failure> {
    check_paths(args)?;
    let (mut world, hash) = setup::world(args)?;
    let plan = world.plan().clone();
    if plan.programs.is_empty() {
        return Err(Failure::new("the plan has no programs"));
    }
    let program = plan.programs.iter().position(|p| p.name == plan.header.task || p.times > 0).unwrap_or(0);
    // All that may be wrong with what was given is found before the parameters are filled, which takes its time.
    let mut results = Results::new(args, &mut world, program)?;
    let takes = |world: &World, feed| programs(&plan, program).any(|program| world.takes(program, feed));
    let feeds = feeds(args, &plan, |feed| takes(&world, feed))?;
    let batch = feeds.batch(|feed| takes(&world, feed));
    let start = values::fill(args, &mut world, hash)?;
    let (first, samples) = (start.step, start.samples);
    let saver = Saver::new(args, hash, start, batch);

    let runs = runs(args, &plan, program, first);
    let steps = runs.last().and_then(|(_, end)| *end).map(|end| end - first.min(end));
    let mut metrics = match &args.metrics {
        Some(path) => Some(Metrics::open(path, &plan.header, args.resume.is_some())?),
        None => None,
    };
    let mut trace = args.trace.as_deref().map(|path| Trace::open(path, &world)).transpose()?;
    let mut progress = Progress::new(&plan.header, first, steps);
    let (mut step, mut saved, mut strange) = (first, None, false);
    note(&format!("ready after {}", duration(begin.elapsed().as_secs_f64())));
    let mut over = false;
    for (program, end) in runs {
        if over || end.is_some_and(|end| end <= step) {
            continue;
        }
        let feeds = feeds.clone().starting(step, samples + (step - first) * batch);
        world.feed(program, &feeds, step, end.map(|end| end - step))?;
        while !over && end.is_none_or(|end| step < end) {
            let run = world.step(program)?;
            step += 1;
            let numbers = results.step(&mut world);
            let shown = numbers.iter().find(|(name, _)| name == "loss").or(numbers.first());
            progress.step(step, shown, run);
            if let Some((name, value)) = numbers.iter().find(|(_, v)| !v.is_finite() && !strange) {
                progress.note(&format!("warning: {name} is {value} at step {step}"));
                strange = true;
            }
            if let Some(metrics) = &mut metrics {
                metrics.step(step, &numbers, run)?;
            }
            if let Some(trace) = &mut trace {
                trace.add(&world, program, step)?;
            }
            saved = None;
            if let Some(saver) = saver.as_ref().filter(|s| s.due(step)) {
                let path = saver.save(&world, step)?;
                progress.note(&format!("saved {}", path.display()));
                saved = Some(path);
            }
            // Half of the next step over the time is as near as half of it under.
            let next = begin.elapsed().as_secs_f64() + 0.5 * (run.time + run.fed).as_secs_f64();
            if args.seconds.is_some_and(|s| next > s) {
                over = true;
            }
        }
    }
    progress.finish();

    if let Some(trace) = trace {
        trace.close()?;
    }
    if let Some(path) = &args.outputs {
        let count = results.write(&world, path)?;
        note(&format!("wrote {} to {}", plural(count, "tensor"), path.display()));
    }
    if let Some(saver) = &saver {
        let path = match saved {
            Some(path) => path,
            None => saver.save(&world, step)?,
        };
        note(&format!("saved {}; go on with: {}", path.display(), saver.resume_command()));
    }
    Ok(())
}

/// The programs that a run goes through: all of a plan of fixed runs, or the one.
fn programs(plan: &Plan, program: usize) -> impl Iterator<Item = usize> {
    let fixed = plan.programs.iter().any(|p| p.times > 0);
    (0..plan.programs.len()).filter(move |p| fixed || *p == program)
}

/// The programs in order, each with the step before which it ends. A plan of fixed runs goes through them once, and
/// `--steps` may end it early; any other repeats one program as often as the user asks.
fn runs(args: &Args, plan: &Plan, program: usize, first: u64) -> Vec<(usize, Option<u64>)> {
    if plan.programs.iter().all(|p| p.times == 0) {
        let steps = if args.seconds.is_some() { args.steps } else { Some(args.steps.unwrap_or(1)) };
        return vec![(program, steps.map(|n| first.saturating_add(n)))];
    }
    let last = args.steps.map_or(u64::MAX, |n| first.saturating_add(n));
    let mut end = 0u64;
    let ends = plan.programs.iter().map(|p| {
        end = end.saturating_add(p.times);
        Some(end.min(last))
    });
    ends.enumerate().collect()
}

/// What would fail at the end fails now.
fn check_paths(args: &Args) -> Result<(), Failure> {
    if args.seconds.is_some_and(|s| s.is_nan() || s <= 0.0) {
        return Err(Failure::new("--seconds wants a number above zero"));
    }
    for path in [&args.outputs, &args.trace, &args.metrics].into_iter().flatten() {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            let message = format!("{}: there is no folder {}", path.display(), folder.display());
            return Err(Failure::new(message).help("make the folder first"));
        }
    }
    if args.save.as_ref().is_some_and(|p| p.exists() && !p.is_dir()) {
        return Err(Failure::new("--save wants a folder, and there is a file of that name"));
    }
    Ok(())
}

/// Opens inputs and data, whole and once for all ranks and programs; `used` tells which feeds the run takes.
fn feeds(args: &Args, plan: &Plan, used: impl Fn(usize) -> bool) -> Result<Feeds, Failure> {
    let all = &plan.manifest.feeds;
    let inputs = match &args.inputs {
        Some(path) => Inputs::open(path, all, &used)?,
        None => Inputs::none(all),
    };
    let data = args.data.as_deref().map(|path| Dataset::open(path, plan.header.seed)).transpose()?;
    let found = args.data.as_ref().zip(data.as_ref().map(Dataset::records));
    let feeds = Feeds::new(all.clone(), plan.header.seed, inputs, data);
    let synthetic = feeds.check(used)?;
    if let Some((path, records)) = found {
        note(&format!("{} in {}", plural(records, "record"), path.display()));
    }
    if !synthetic.is_empty() {
        note(&format!("no --data and no --inputs for {}: synthetic values", synthetic.join(", ")));
    }
    Ok(feeds)
}

/// The file of `--trace`.
struct Trace<'a> {
    path: &'a Path,
    writer: TraceWriter<BufWriter<File>>,
}

impl<'a> Trace<'a> {
    fn open(path: &'a Path, world: &World) -> Result<Self, Failure> {
        let ranks = 0..world.executors().len();
        let writer = File::create(path)
            .and_then(|file| TraceWriter::new(BufWriter::new(file), world.plan(), ranks, MOST_EVENTS))
            .map_err(|e| Failure::file(path, &e))?;
        Ok(Self { path, writer })
    }

    fn add(&mut self, world: &World, program: usize, step: u64) -> Result<(), Failure> {
        for executor in world.executors() {
            self.writer.add(executor, program, step).map_err(|e| Failure::file(self.path, &e))?;
        }
        Ok(())
    }

    fn close(self) -> Result<(), Failure> {
        if self.writer.finish().map_err(|e| Failure::file(self.path, &e))? {
            note(&format!("the trace holds the first {MOST_EVENTS} events only: more do not open well"));
        }
        note(&format!("wrote {}: open it at ui.perfetto.dev", self.path.display()));
        Ok(())
    }
}
