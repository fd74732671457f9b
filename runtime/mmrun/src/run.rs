//! A run: from the plan to the last step, and what is written on the way.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use data::{Dataset, Feeds, Inputs};
use plan::{Plan, PlanHash};
use runtime_core::{Executor, TraceWriter};

use crate::cli::Args;
use crate::failure::Failure;
use crate::finite::{self, Finite};
use crate::metrics::Metrics;
use crate::progress::{Counting, Progress, duration, plural};
use crate::results::Results;
use crate::save::Saver;
use crate::world::World;
use crate::{agreement, launch, setup, values};

/// Viewers of traces do not open many more.
const MOST_EVENTS: usize = 1_000_000;

pub fn run(args: &Args, begin: Instant) -> Result<(), Failure> {
    let launched = launch::start(args)?;
    // From here on, the other processes hear of whatever goes wrong in this one.
    let result = check_paths(args)
        .and_then(|()| setup::world(args, &launched))
        .and_then(|(world, hash)| train(args, begin, world, hash));
    launched.finish(result)
}

fn train(args: &Args, begin: Instant, mut world: World, hash: PlanHash) -> Result<(), Failure> {
    let plan = world.plan().clone();
    if plan.programs.is_empty() {
        return Err(Failure::new("the plan has no programs"));
    }
    let program = plan.programs.iter().position(|p| p.name == plan.header.task || p.times > 0).unwrap_or(0);
    // All that may be wrong with what was given is found before the parameters are filled, which takes its time.
    agreement::folders(args, world.together())?;
    let mut results = Results::new(args, &mut world, program)?;
    let feeds = feeds(args, &world, program)?;
    finite::check_inputs(args, &world, program, &feeds)?;
    let batch = feeds.batch(|feed| takes(&world, program, feed));
    let start = values::fill(args, &mut world, hash)?;
    let (first, samples) = (start.step, start.samples);
    let mut saver = Saver::new(args, hash, start, batch);

    let runs = runs(args, &plan, program, first);
    let steps = runs.last().and_then(|(_, end)| *end).map(|end| end - first.min(end));
    let speaks = world.together().is_first();
    let mut metrics = match &args.metrics {
        Some(path) if speaks => Some(Metrics::open(path, &plan.header, args.resume.is_some())?),
        _ => None,
    };
    let mut trace = args.trace.as_deref().map(|path| Trace::open(path, &world)).transpose()?;
    let mut progress = Progress::new(&plan.header, speaks, first, steps);
    let (mut step, mut saved, mut strange) = (first, None, false);
    let mut finite = Finite::new(args, &world, program)?;
    let mut failed = None;
    world.note(&format!("ready after {}", duration(begin.elapsed().as_secs_f64())));
    let mut over = false;
    for (program, end) in runs {
        if over || end.is_some_and(|end| end <= step) {
            continue;
        }
        let feeds = feeds.clone().starting(step, samples + (step - first) * batch);
        world.feed(program, &feeds, step, end.map(|end| end - step))?;
        while !over && end.is_none_or(|end| step < end) {
            world.settle();
            let strange_records = feeds.strange_records(step);
            failed = finite.check_records(&world, step + 1, &strange_records).err();
            if failed.is_some() {
                over = true;
                break;
            }
            strange_records.iter().for_each(|line| progress.note(&format!("warning: {line}")));
            let run = world.step(program)?;
            step += 1;
            let numbers = results.step(&mut world);
            let shown = numbers.iter().find(|(name, _)| name == "loss").or(numbers.first());
            progress.step(step, shown, run);
            let skipped = finite.left_out(&world)?;
            let odd = numbers.iter().find(|(_, v)| !v.is_finite() && !strange && !finite.looks());
            if let Some((name, value)) = odd {
                progress.note(&format!("warning: {name} is {value} at step {step}"));
                strange = true;
            }
            if let Some(metrics) = &mut metrics {
                metrics.step(step, &numbers, skipped, run)?;
            }
            if skipped {
                let records = finite::records(args, &feeds, samples + (step - 1 - first) * batch, batch);
                match finite.tell(step, &numbers, &records) {
                    Ok(line) if speaks => progress.note(&line),
                    Ok(_) => {}
                    Err(failure) => {
                        // The state is still that of the step before.
                        (step, failed, over) = (step - 1, Some(failure), true);
                        break;
                    }
                }
            }
            if let Some(trace) = &mut trace {
                trace.add(&world, program, step)?;
            }
            saved = None;
            if let Some(saver) = &mut saver {
                let due = saver.due(step);
                if let Some(path) = saver.written(due)? {
                    progress.note(&format!("saved {}", path.display()));
                }
                if due {
                    saver.save_behind(&world, step)?;
                    saved = Some(step);
                }
            }
            if let Some(seconds) = args.seconds {
                // Half of the next step over the time is as near as half of it under.
                let next = begin.elapsed().as_secs_f64() + 0.5 * (run.time + run.fed).as_secs_f64();
                over = ends(&world, step, next > seconds)?;
            }
        }
    }
    progress.finish();
    finite.summary(step - first).iter().for_each(|line| world.note(line));

    if let Some(trace) = trace {
        trace.close(&world)?;
    }
    if let Some(path) = &args.outputs {
        let count = results.write(&world, path)?;
        world.note(&format!("wrote {} to {}", plural(count, "tensor"), path.display()));
    }
    if let Some(saver) = &mut saver {
        let path = match saver.written(true)? {
            Some(path) if saved == Some(step) => path,
            _ => saver.save(&world, step)?,
        };
        world.note(&format!("saved {}; go on with: {}", path.display(), saver.resume_command()));
    }
    failed.map_or(Ok(()), Err)
}

/// Whether all processes stop after this step: if the time is over for one of them.
fn ends(world: &World, step: u64, over: bool) -> Result<bool, Failure> {
    let all = world.together().meet(&format!("finish step {step}"), vec![u8::from(over)])?;
    Ok(all.iter().any(|one| one.contains(&1)))
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

/// Whether the run takes a feed.
fn takes(world: &World, program: usize, feed: usize) -> bool {
    programs(world.plan(), program).any(|program| world.takes(program, feed))
}

/// Opens inputs and data, whole and once for all ranks and programs.
fn feeds(args: &Args, world: &World, program: usize) -> Result<Feeds, Failure> {
    let (plan, used) = (world.plan(), |feed| takes(world, program, feed));
    let all = &plan.manifest.feeds;
    let inputs = match &args.inputs {
        Some(path) => Inputs::open(path, all, used)?,
        None => Inputs::none(all),
    };
    let counting = Counting::new(world.together().is_first());
    let told = |what: &str, done, of| counting.at(what, done, of);
    let data = args.data.as_deref().map(|path| Dataset::open(path, plan.header.seed, &told)).transpose();
    counting.end();
    let data = data?;
    agreement::feeds(world.together(), args, (&inputs, all.len()), data.as_ref())?;
    let found = args.data.as_ref().zip(data.as_ref().map(|d| (d.records(), d.left_out().join(", "))));
    let feeds = Feeds::new(all.clone(), plan.header.seed, inputs, data);
    let synthetic = feeds.check(used)?;
    if let Some((path, (records, left_out))) = found {
        let left_out = if left_out.is_empty() { left_out } else { format!("; not read: {left_out}") };
        world.note(&format!("{} in {}{left_out}", plural(records, "record"), path.display()));
    }
    if !synthetic.is_empty() {
        world.note(&format!("no --data and no --inputs for {}: synthetic values", synthetic.join(", ")));
    }
    Ok(feeds)
}

/// The file of `--trace`. Other processes keep their events until rank 0 adds them at the end.
struct Trace<'a> {
    path: &'a Path,
    writer: TraceWriter<Box<dyn Write>>,
    kept: Shared,
}

impl<'a> Trace<'a> {
    fn open(path: &'a Path, world: &World) -> Result<Self, Failure> {
        let kept = Shared::default();
        let make = || -> io::Result<_> {
            let out: Box<dyn Write> = match world.together().is_first() {
                true => Box::new(BufWriter::new(File::create(path)?)),
                false => Box::new(kept.clone()),
            };
            let most = MOST_EVENTS / world.together().count();
            TraceWriter::new(out, world.plan(), world.executors().map(Executor::rank), most)
        };
        let writer = make().map_err(|e| Failure::file(path, &e))?;
        Ok(Self { path, writer, kept })
    }

    fn add(&mut self, world: &World, program: usize, step: u64) -> Result<(), Failure> {
        for executor in world.executors() {
            self.writer.add(executor, program, step).map_err(|e| Failure::file(self.path, &e))?;
        }
        Ok(())
    }

    fn close(mut self, world: &World) -> Result<(), Failure> {
        let events = self.kept.take();
        let mut all = world.together().collect("give their events for the trace", events)?;
        if !world.together().is_first() {
            return Ok(());
        }
        let file = |e| Failure::file(self.path, &e);
        all.remove(0);
        all.iter().try_for_each(|events| self.writer.append(events)).map_err(file)?;
        if self.writer.finish().map_err(file)? {
            world.note(&format!("the trace holds the first {MOST_EVENTS} events only: more do not open well"));
        }
        world.note(&format!("wrote {}: open it at ui.perfetto.dev", self.path.display()));
        Ok(())
    }
}

/// Bytes that are written in one place and taken in another.
#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Vec<u8>>>);

impl Shared {
    fn take(&self) -> Vec<u8> {
        self.0.take()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
