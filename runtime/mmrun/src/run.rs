//! A run: steps, and what is written between and after them.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::Instant;

use data::{Dataset, Feeds, Inputs, Outputs, Position, TensorView};
use plan::{EmitId, Plan, PlanHash, When};
use runtime_core::{Executor, Feeder, TraceWriter};

use crate::cli::Args;
use crate::failure::Failure;
use crate::metrics::Metrics;
use crate::progress::{Progress, duration, note};
use crate::setup::{self, Start};

/// More events than viewers open.
const MOST_EVENTS: usize = 1_000_000;

/// What a run gives besides its final state, by emit.
struct Wanted {
    /// Single numbers, shown and logged.
    numbers: Vec<EmitId>,
    /// Whole tensors of the last step.
    tensors: Vec<EmitId>,
    /// Asked for with `--emit`, of the first step.
    first: Vec<EmitId>,
    params: bool,
}

pub fn run(args: &Args, begin: Instant) -> Result<(), Failure> {
    check_paths(args)?;
    let (mut executor, hash, start) = setup::executor(args)?;
    let plan = executor.plan().clone();
    let program = plan.programs.iter().position(|p| p.name == plan.header.task).unwrap_or(0);
    if plan.programs.is_empty() {
        return Err(Failure::new("the plan has no programs"));
    }
    let wanted = wanted(args, &plan, &executor, program)?;
    let feeds = feeds(args, &executor, program, &start)?;
    let limit = if args.seconds.is_some() { args.steps } else { Some(args.steps.unwrap_or(1)) };
    let used = |feed: usize| executor.feeds(program).iter().any(|(f, _)| *f == feed);
    let batch = feeds.batch(used);
    let mut feeder = Feeder::new(&executor, program, feeds, start.step, limit)?;
    for emit in wanted.numbers.iter().chain(&wanted.tensors).chain(&wanted.first) {
        executor.request(*emit, true);
    }

    let mut metrics = match &args.metrics {
        Some(path) => Some(Metrics::open(path, &plan.header, args.resume.is_some())?),
        None => None,
    };
    let mut trace = args.trace.as_deref().map(|path| open_trace(path, &plan)).transpose()?;
    let mut outputs = Outputs::default();
    let mut progress = Progress::new(&plan.header, start.step, limit);
    let mut step = start.step;
    let mut strange = false;
    let mut saved = None;
    note(&format!("ready after {}", duration(begin.elapsed().as_secs_f64())));
    while limit.is_none_or(|n| step < start.step + n) {
        let run = executor.run(program, &mut feeder)?;
        step += 1;
        saved = None;
        let numbers = collect(&executor, &plan, &wanted, &mut outputs);
        if step == start.step + 1 {
            for emit in &wanted.first {
                outputs.set(
                    &plan.manifest.emits[emit.index()].name,
                    &plan.manifest.emits[emit.index()].ty,
                    &executor.emitted(*emit),
                );
                executor.request(*emit, false);
            }
        }
        progress.step(step, numbers.iter().find(|(n, _)| n == "loss").or(numbers.first()).map(|(_, v)| *v), run);
        if let Some((name, value)) = numbers.iter().find(|(_, v)| !v.is_finite()).filter(|_| !strange) {
            progress.note(&format!("warning: {name} is {value} at step {step}"));
            strange = true;
        }
        if let Some(metrics) = &mut metrics {
            metrics.step(step, &numbers, run)?;
        }
        if let Some((path, trace)) = &mut trace {
            trace.add(&executor, program, step).map_err(|e| Failure::file(path, &e))?;
        }
        if let (Some(folder), Some(every)) = (&args.save, args.save_every)
            && step.is_multiple_of(every)
        {
            let at = position(&plan, hash, &start, step, batch);
            saved = Some(save(&executor, folder, &at)?);
            progress.note(&format!("saved {}", folder.join(format!("step-{step:06}")).display()));
        }
        // Half of the next step over the time is as near as half of it under.
        let next = begin.elapsed().as_secs_f64() + 0.5 * (run.time + run.fed).as_secs_f64();
        if args.seconds.is_some_and(|s| next > s) {
            break;
        }
    }
    progress.finish();
    drop(feeder);

    if let Some((path, trace)) = trace {
        if trace.finish().map_err(|e| Failure::file(&path, &e))? {
            note(&format!("the trace holds the first steps only: more than {MOST_EVENTS} events do not open well"));
        }
        note(&format!("wrote {}: open it at ui.perfetto.dev", path.display()));
    }
    if let Some(path) = &args.outputs {
        if wanted.params {
            for p in &plan.manifest.parameters {
                let values = p.buffer(executor.class()).and_then(|id| executor.read(id)).unwrap_or_default();
                outputs.set(&format!("param/{}", p.name), &p.ty, values);
            }
        }
        outputs.write(path)?;
        note(&format!("wrote {} tensors to {}", outputs.names().count(), path.display()));
    }
    if let Some(folder) = &args.save {
        let at = position(&plan, hash, &start, step, batch);
        let path = match saved {
            Some(path) => path,
            None => save(&executor, folder, &at)?,
        };
        note(&format!("saved {}; go on with: {}", path.display(), resume_command(args, folder)));
    }
    Ok(())
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

fn wanted(args: &Args, plan: &Plan, executor: &Executor, program: usize) -> Result<Wanted, Failure> {
    let mut wanted = Wanted { numbers: vec![], tensors: vec![], first: vec![], params: false };
    let mut words = vec!["params".to_string()];
    for (index, _) in executor.emits(program) {
        let emit = &plan.manifest.emits[*index];
        let id = EmitId::new(*index);
        let word = match &emit.when {
            When::Always => emit.name.to_string(),
            When::OnRequest(word) => word.to_string(),
        };
        match &emit.when {
            When::Always if emit.ty.rank() == 0 => wanted.numbers.push(id),
            When::Always if args.outputs.is_some() => wanted.tensors.push(id),
            When::OnRequest(word) if args.emit.iter().any(|w| *word == *w.as_str()) => wanted.first.push(id),
            _ => {}
        }
        if !words.contains(&word) {
            words.push(word);
        }
    }
    if let Some(word) = args.emit.iter().find(|w| !words.contains(w)) {
        words.sort();
        let program = &plan.programs[program].name;
        return Err(Failure::new(format!("the program `{program}` does not give `{word}`"))
            .help(format!("--emit takes {}", words.join(", "))));
    }
    wanted.params = args.emit.iter().any(|w| w == "params");
    if args.outputs.is_none() && (wanted.params || !wanted.first.is_empty()) {
        return Err(Failure::new("--emit has nowhere to write to").help("add --outputs F.safetensors"));
    }
    Ok(wanted)
}

fn feeds(args: &Args, executor: &Executor, program: usize, start: &Start) -> Result<Feeds, Failure> {
    let plan = executor.plan();
    let used = |feed: usize| executor.feeds(program).iter().any(|(f, _)| *f == feed);
    let all = &plan.manifest.feeds;
    let inputs = match &args.inputs {
        Some(path) => Inputs::open(path, all, used)?,
        None => Inputs::none(all),
    };
    let data = args.data.as_deref().map(|path| Dataset::open(path, plan.header.seed)).transpose()?;
    if let (Some(path), Some(data)) = (&args.data, &data) {
        note(&format!("{} records in {}", data.records(), path.display()));
    }
    let feeds = Feeds::new(all.clone(), plan.header.seed, inputs, data, (start.step, start.samples));
    let synthetic = feeds.synthetic(used);
    if !synthetic.is_empty() {
        note(&format!("no --data and no --inputs for {}: synthetic values", synthetic.join(", ")));
    }
    Ok(feeds)
}

fn open_trace(path: &Path, plan: &Plan) -> Result<(PathBuf, TraceWriter<BufWriter<File>>), Failure> {
    let file = File::create(path).and_then(|f| TraceWriter::new(BufWriter::new(f), plan, 0, MOST_EVENTS));
    Ok((path.into(), file.map_err(|e| Failure::file(path, &e))?))
}

/// Takes what the last run gave; the numbers among it come back.
fn collect(executor: &Executor, plan: &Plan, wanted: &Wanted, outputs: &mut Outputs) -> Vec<(String, f32)> {
    for emit in &wanted.tensors {
        outputs.add(&plan.manifest.emits[emit.index()], &executor.emitted(*emit));
    }
    let mut numbers = Vec::new();
    for id in &wanted.numbers {
        let emit = &plan.manifest.emits[id.index()];
        let bytes = executor.emitted(*id);
        outputs.add(emit, &bytes);
        let mut value = Vec::new();
        data::widen(emit.ty.dtype, &bytes, &mut value);
        numbers.extend(value.first().map(|v| (emit.name.to_string(), *v)));
    }
    numbers
}

fn position(plan: &Plan, hash: PlanHash, start: &Start, step: u64, batch: u64) -> Position {
    Position {
        step,
        samples: start.samples + (step - start.step) * batch,
        seed: plan.header.seed,
        plan_hash: hash.to_string(),
        model: plan.header.model.to_string(),
        preset: plan.header.preset.to_string(),
    }
}

fn save(executor: &Executor, folder: &Path, at: &Position) -> Result<PathBuf, Failure> {
    let m = &executor.plan().manifest;
    let class = executor.class();
    let shapes = |ty: &types::TensorType| ty.sizes();
    let parameters: Vec<_> = m.parameters.iter().map(|p| (&p.name, &p.ty, shapes(&p.ty), p.buffer(class))).collect();
    let states: Vec<_> = m.states.iter().map(|s| (&s.name, &s.ty, shapes(&s.ty), s.buffer(class))).collect();
    let mut lists = Vec::new();
    for list in [&parameters, &states] {
        let mut views = Vec::new();
        for (name, ty, shape, id) in list {
            let bytes = id.and_then(|id| executor.read(id)).and_then(|b| b.get(..ty.bytes()));
            let data = bytes.ok_or_else(|| Failure::new(format!("`{name}` has no memory to be saved from")))?;
            views.push((name.to_string(), TensorView::new(ty.dtype, shape, data)));
        }
        lists.push(views);
    }
    Ok(data::save(folder, at, &lists[0], &lists[1])?)
}

/// The command that goes on where this run ends.
fn resume_command(args: &Args, folder: &Path) -> String {
    let mut command = format!("mmrun {} --resume {}", args.plan.display(), folder.display());
    for (flag, path) in [("data", &args.data), ("inputs", &args.inputs), ("save", &args.save)] {
        if let Some(path) = path {
            command += &format!(" --{flag} {}", path.display());
        }
    }
    command + " --steps N"
}
