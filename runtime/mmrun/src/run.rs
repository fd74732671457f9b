//! A run: from the plan to the last step, and what is written at its end.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use data::{Dataset, Feeds, Inputs, Records, Taker};
use plan::{Feed, PlanHash};

use crate::cli::Args;
use crate::failure::Failure;
use crate::finite::{self, Finite};
use crate::metrics::Metrics;
use crate::progress::{Counting, Progress, duration, plural};
use crate::range::{past_schedule, programs, runs};
use crate::results::Results;
use crate::save::{self, Saver};
use crate::signals::{self, Signals};
use crate::steps::{Ending, Steps};
use crate::trace_file::Trace;
use crate::world::World;
use crate::{agreement, launch, places, setup, values};

/// Gives the exit code.
pub fn run(args: &Args, begin: Instant) -> Result<u8, Failure> {
    let signals = Signals::default();
    let launched = launch::start(args, &signals)?;
    // From here on, the other processes hear of whatever goes wrong in this one.
    let result = places::check(args)
        .and_then(|()| setup::world(args, &launched))
        .and_then(|(world, hash)| train(args, begin, world, hash, signals));
    launched.finish(result)
}

fn train(args: &Args, begin: Instant, mut world: World, hash: PlanHash, signals: Signals) -> Result<u8, Failure> {
    let plan = world.plan().clone();
    if plan.programs.is_empty() {
        return Err(Failure::new("the plan has no programs"));
    }
    let order = programs(args, &plan)?;
    let programs: Vec<usize> = order.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    // All that may be wrong with what was given is found before the parameters are filled, which takes its time.
    agreement::folders(args, world.together())?;
    let results = Results::new(args, &mut world, &programs)?;
    let (feeds, data) = feeds(args, &world, &programs)?;
    finite::check_inputs(args, &world, &programs, &feeds)?;
    let batches = programs.iter().map(|&p| feeds[p].batch(|feed| world.takes(p, feed)));
    let batch = batches.max().unwrap_or(0);
    // Nobody else writes to the folder from here on, so that what is found in it stays.
    let folder = save::folder(args, &world)?;
    let start = values::fill(args, &mut world, hash, data.as_ref())?;
    let first = start.step;
    let runs = runs(args, &plan, &order, first);
    let steps = runs.last().and_then(|(_, end)| *end).map(|end| end - first.min(end));
    let saver =
        folder.map(|folder| Saver::new(args, (folder, &world), hash, start.clone(), (batch, data))).transpose()?;
    if let Some(saver) = saver.as_ref().filter(|_| steps != Some(0)) {
        saver.check_room(world.together())?;
    }

    // A pipe may wait for its reader from here on.
    signals.watch()?;
    let wait = signals.wait();
    let speaks = world.together().is_first();
    let metrics = match &args.metrics {
        Some(path) if speaks => Some(Metrics::open(path, programs.len() > 1, start.from.is_some(), &wait)?),
        _ => None,
    };
    let trace = args.trace.as_deref().map(|path| Trace::open(path, &world, &wait)).transpose()?;
    let progress = Progress::new(speaks, first, steps);
    if let Some(told) = past_schedule(&plan.header, first, steps) {
        world.note(&told);
    }
    world.note(&format!("ready after {}", duration(begin.elapsed().as_secs_f64())));
    if steps == Some(0) {
        world.note(&format!("step {first} is reached already: no step is left to run"));
    }
    let finite = Finite::new(args, &world, &programs)?;
    let (faults, strange) = (Vec::new(), false);
    let mut steps = Steps {
        args,
        world,
        results,
        feeds,
        batch,
        start,
        step: first,
        saver,
        metrics,
        trace,
        progress,
        signals,
        begin,
        faults,
        finite,
        strange,
    };
    let ending = steps.run(runs);
    steps.progress.finish();
    steps.finite.summary(steps.step - first).iter().for_each(|line| steps.world.note(line));
    end(steps, ending)
}

/// Writes what is left to write, the checkpoint first: nothing that goes wrong with the others must cost it.
fn end(mut steps: Steps<'_>, ending: Ending) -> Result<u8, Failure> {
    let whole = !matches!(ending, Ending::Within(_));
    let kept = steps.save_last(whole);
    let go_on = steps.saver.as_ref().filter(|s| s.last().is_some()).map(Saver::how_to_go_on);
    let helped = |failure: Failure| go_on.iter().fold(failure, |failure, help| failure.help(help));
    let (signal, failed) = match ending {
        Ending::Whole => (None, None),
        Ending::Signal(signal) => (Some(signal), None),
        Ending::Between(failure) => (None, Some(helped(failure))),
        Ending::Within(failure) => return Err(helped(failure)),
    };
    kept?;
    if let Some(trace) = steps.trace.take()
        && let Err(failure) = trace.close(&steps.world)
    {
        steps.fault(failure);
    }
    if let Some(folder) = &steps.args.probe_folder
        && let Err(failure) = probes(&steps, folder)
    {
        steps.fault(failure);
    }
    if let Some(path) = &steps.args.outputs
        && let Err(failure) = outputs(&mut steps, path)
    {
        steps.fault(failure);
    }
    // A signal may have ended what waited for the reader of a pipe.
    let signal = signal.or_else(|| steps.signals.caught().filter(|_| !steps.faults.is_empty()));
    let (world, step) = (&steps.world, steps.step);
    if let Some(failure) = failed {
        return Err(failure);
    }
    if let Some(signal) = signal {
        let saved = match (&go_on, &steps.saver) {
            (Some(go_on), Some(saver)) => {
                format!("{} is saved; {go_on}", saver.last().unwrap_or(Path::new("")).display())
            }
            _ => "nothing was saved".into(),
        };
        world.note(&format!("stopped by {} after step {step}: {saved}", signals::name(signal)));
        return Ok(u8::try_from(128 + signal).unwrap_or(1));
    }
    let is_over = steps.args.until.is_some_and(|until| step >= until);
    if let Some(go_on) = go_on.filter(|_| !is_over) {
        world.note(&go_on);
    }
    if steps.faults.is_empty() {
        return Ok(0);
    }
    let list: String = steps.faults.iter().map(|fault| format!("\n  {}", fault.failure.message())).collect();
    let helps: BTreeSet<&str> = steps.faults.iter().flat_map(|fault| fault.failure.helps()).collect();
    let list = helps.iter().fold(list, |list, help| format!("{list}\n  help: {help}"));
    world.note(&format!("error: the run ended at step {step}, and not all that was asked for is written:{list}"));
    Ok(1)
}

/// Writes what modules computed in the first step.
fn probes(steps: &Steps<'_>, folder: &Path) -> Result<(), Failure> {
    let world = &steps.world;
    if steps.step == steps.start.step {
        world.note(&format!("no step was run: nothing is in {}", folder.display()));
        return Ok(());
    }
    let count = steps.results.write_probes(world, folder, &steps.signals.wait())?;
    world.note(&format!("wrote {} of modules to {}", plural(count, "tensor"), folder.display()));
    Ok(())
}

/// Writes the outputs, as far as the run has them.
fn outputs(steps: &mut Steps<'_>, path: &Path) -> Result<(), Failure> {
    let (world, results) = (&steps.world, std::mem::take(&mut steps.results));
    if steps.step == steps.start.step && results.needs_steps() {
        // What an earlier run wrote is better than a part.
        let there = world.together().agree("look for outputs", Ok(vec![u8::from(path.exists())]))?;
        if there[0] == [1] {
            let params = steps.args.emit.iter().any(|word| word == "params");
            let also = if params { ", and --emit params writes nothing" } else { "" };
            world.note(&format!("{} stays as it is: no step was run{also}", path.display()));
            return Ok(());
        }
        world.note("no step was run: what steps give is not in the outputs");
    }
    let count = results.write(world, path, &steps.signals.wait())?;
    world.note(&format!("wrote {} to {}", plural(count, "tensor"), path.display()));
    Ok(())
}

/// Opens inputs and data, once for all ranks; gives the feeds of each program of the plan.
fn feeds(args: &Args, world: &World, programs: &[usize]) -> Result<(Vec<Feeds>, Option<Records>), Failure> {
    let plan = world.plan();
    let mut inputs: Vec<Inputs> = plan.programs.iter().map(|p| Inputs::none(&p.feeds)).collect();
    if let Some(path) = &args.inputs {
        let takers = programs.iter().map(|&p| {
            let program = &plan.programs[p];
            // Whose the rows of a ragged feed are follows from feeds that other ranks may take.
            let tells = |feed: &Feed| plan.manifest.ragged.iter().any(|r| r.owner.inputs().contains(&&feed.name));
            let used = program.feeds.iter().enumerate().map(|(i, feed)| world.takes(p, i) || tells(feed)).collect();
            Taker { program: &program.name, feeds: &program.feeds, used, ragged: &plan.manifest.ragged }
        });
        let given = Inputs::of_run(path, &takers.collect::<Vec<_>>())?;
        programs.iter().zip(given).for_each(|(&p, given)| inputs[p] = given);
    }
    let counting = Counting::new(world.together().is_first());
    let told = |what: &str, done, of| counting.at(what, done, of);
    let data = args.data.as_deref().map(|path| Dataset::open(path, plan.header.seed, &told)).transpose();
    counting.end();
    let data = data?;
    agreement::feeds(world.together(), args, &inputs, data.as_ref())?;
    let found = args.data.as_ref().zip(data.as_ref().map(|d| (d.records(), d.left_out().join(", "))));
    let feeds = plan.programs.iter().zip(inputs);
    let ragged = &plan.manifest.ragged;
    let feeds =
        feeds.map(|(p, inputs)| Feeds::new(p.feeds.clone(), plan.header.seed, inputs, data.clone()).ragged(ragged));
    let feeds: Vec<Feeds> = feeds.collect();
    let from_data = programs.iter().flat_map(|&p| feeds[p].from_data(|feed| world.takes(p, feed)));
    let from_data: Vec<&Feed> = from_data.collect();
    match &data {
        Some(_) if from_data.is_empty() => {
            return Err(Failure::new("the program takes nothing from data").help("leave out --data"));
        }
        Some(data) => {
            for &p in programs {
                let taken = feeds[p].from_data(|feed| world.takes(p, feed));
                taken.into_iter().try_for_each(|feed| feeds[p].check(data, feed))?;
            }
        }
        None => {}
    }
    let kept = found.as_ref().map(|(path, (n, _))| Records { path: path.display().to_string(), records: *n });
    if let Some((path, (records, left_out))) = found {
        let left_out = if left_out.is_empty() { left_out } else { format!("; not read: {left_out}") };
        world.note(&format!("{} in {}{left_out}", plural(records, "record"), path.display()));
    } else if !from_data.is_empty() {
        let mut names: Vec<&str> = Vec::new();
        from_data.iter().for_each(|feed| {
            if !names.contains(&feed.name.as_str()) {
                names.push(&feed.name)
            }
        });
        world.note(&format!("no --data and no --inputs for {}: synthetic values", names.join(", ")));
    }
    Ok((feeds, kept))
}
