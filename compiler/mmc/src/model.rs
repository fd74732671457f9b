//! Finding, reading and evaluating models, and the pipeline that turns a traced graph into the global one.

use std::path::Path;
use std::time::Instant;

use diag::{Diagnostic, Diagnostics, SourceId, Sources};
use eval::{Evaluated, Published};
use ir::{Module, Wish};
use passes::{Context, Form, MemoryPolicy, Pipeline, Stages};
use types::Name;

use crate::args::{self, Model, Options, Overlap, Recompute, WorkType};
use crate::{built_in, folder, input};

pub fn read(path: &Path, what: &str, most: u64) -> Result<String, Diagnostics> {
    input::text(path, most).map_err(|e| {
        let mut error = Diagnostic::error(format!("cannot read {what} {}: {e}", path.display()));
        if what == "the model" {
            let names: Vec<_> = built_in::names().collect();
            error =
                error.help(format!("give the path of a .mm file, or one of the built-in models: {}", names.join(", ")));
        }
        error.into()
    })
}

/// The model's text: the file, or the built-in model of that name where there is no such file.
pub fn load(path: &Path, sources: &mut Sources) -> Result<SourceId, Diagnostics> {
    let built_in = path.to_str().filter(|_| !path.exists()).and_then(|name| Some((name, built_in::text(name)?)));
    match built_in {
        Some((name, text)) => Ok(sources.add(name, text)),
        None => Ok(sources.add(path.display().to_string(), read(path, "the model", input::MOST_TEXT)?)),
    }
}

/// The model's text, and the config that has its figures: a folder is that of a published checkpoint.
fn find(args: &Model, sources: &mut Sources) -> Result<(SourceId, Option<Published>), Diagnostics> {
    let is_folder = args.model.is_dir();
    if !is_folder && args.config.is_none() {
        return Ok((load(&args.model, sources)?, None));
    }
    let refuse = |what: &str, help: &str| Err(Diagnostic::error(what).help(help.to_string()).into());
    if args.preset.is_some() {
        return refuse("--preset and a config both give the model its sizes", "give one of them");
    }
    if is_folder && args.config.is_some() {
        return refuse("the model and --config are both checkpoints", "give a .mm file before --config");
    }
    let offers = match &args.config {
        Some(_) => {
            let file = load(&args.model, sources)?;
            let name = args.model.to_str().unwrap_or_default();
            vec![(name, file, eval::offer(sources, file)?)]
        }
        None => built_in::offers(sources)?,
    };
    let config = folder::Config::open(args.config.as_deref().unwrap_or(&args.model), &offers)?;
    let file = match (&args.config, offers.as_slice()) {
        (Some(_), [(_, file, _)]) => *file,
        _ => config.model(&offers)?,
    };
    Ok((file, Some(config.published())))
}

/// A traced model with the mesh it is for.
pub struct Traced {
    /// Of one micro-batch of all replicas.
    pub evaluated: Evaluated,
    /// Micro-batches in a step.
    pub microbatches: u32,
}

/// `--set B=N` and `--batch N` are two words for the samples of a step: from here on `batch` alone says it. What is given
/// twice is given alike.
pub fn agree(args: &mut Model) -> Result<(), Diagnostics> {
    let value = |text: &str| text.trim().replace('_', "");
    for (i, (name, text)) in args.set.iter().enumerate() {
        if let Some((_, other)) = args.set[..i].iter().find(|(n, t)| n == name && value(t) != value(text)) {
            return Err(Diagnostic::error(format!("--set {name}={other} and --set {name}={text}"))
                .help("give one of them")
                .into());
        }
    }
    let Some((_, text)) = args.set.iter().find(|(name, _)| name == "B") else { return Ok(()) };
    // What is no number is told of with the file's own words.
    let Ok(set) = value(text).parse::<u32>() else { return Ok(()) };
    if let Some(batch) = args.batch.filter(|batch| *batch != set) {
        return Err(Diagnostic::error(format!("--set B={set} and --batch {batch} are both the samples of a step"))
            .help("give one of them")
            .into());
    }
    if (1..=args::MAX_BATCH).contains(&set) {
        args.batch = Some(set);
        args.set.retain(|(name, _)| name != "B");
    }
    Ok(())
}

pub fn trace(args: &Model, mesh: &args::Mesh, sources: &mut Sources) -> Result<Traced, Diagnostics> {
    crate::mesh::refuse(mesh, args.batch)?;
    let microbatches = crate::mesh::microbatches(mesh, args.batch);
    let traced = Traced { evaluated: evaluate(args, mesh, microbatches, sources)?, microbatches };
    // Micro-batches that nobody asked for are for tasks that train.
    if microbatches == 1 || mesh.microbatches.is_some() || crate::mesh::trains(&traced.evaluated.module) {
        return Ok(traced);
    }
    Ok(Traced { evaluated: evaluate(args, mesh, 1, sources)?, microbatches: 1 })
}

fn evaluate(
    args: &Model,
    mesh: &args::Mesh,
    microbatches: u32,
    sources: &mut Sources,
) -> Result<Evaluated, Diagnostics> {
    let _span = tracing::info_span!("evaluate").entered();
    let (file, published) = find(args, sources)?;
    let folder = args.model.parent().filter(|_| !args.model.is_dir()).unwrap_or(Path::new("")).to_owned();
    let micro_batch = crate::mesh::micro_batch(mesh, microbatches, args.batch)?;
    let options = eval::Options {
        preset: args.preset.clone(),
        published,
        set: args.set.clone(),
        task: args.task.clone(),
        batch: args.batch.map(|_| micro_batch),
        default_batch: micro_batch,
    };
    let mut sibling = |name: &str| {
        let beside = folder.join(name);
        let built_in = || built_in::text(name).map(|text| (name.to_owned(), text.to_owned()));
        let read = input::text(&beside, input::MOST_TEXT).ok().map(|text| (beside.display().to_string(), text));
        read.or_else(built_in).map(|(path, text)| eval::Sibling { path, text })
    };
    let mut evaluated = eval::evaluate(sources, file, &options, &mut sibling)?;
    if let Some(path) = &args.plan {
        let plan = load(path, sources)?;
        evaluated.wishes = eval::wishes(sources, file, plan, &options, &mut sibling)?;
    }
    crate::mesh::plan(mesh, &mut evaluated)?;
    Ok(evaluated)
}

/// The passes that make the graph of one rank; `hoist-collectives`, where it is wanted, and the target's passes follow.
pub fn pipeline(traced: &Traced, options: &Options) -> String {
    let module = &traced.evaluated.module;
    let dtype = match crate::targets::work_type(options) {
        WorkType::F32 => "f32",
        WorkType::Bf16 => "bf16",
    };
    let trains = crate::mesh::trains(module);
    let parts = match traced.microbatches {
        1 => String::new(),
        count => format!(" | inline | microbatches{{count={count}}}"),
    };
    let recompute = match options.recompute {
        Some(Recompute::Full) if trains => " | recompute{mode=full}",
        _ => "",
    };
    let gradients = if !trains {
        String::new()
    } else if options.optim.is_empty() {
        format!(" | autodiff{parts} | optimizer")
    } else {
        format!(" | autodiff{parts} | optimizer{{{}}}", options.optim)
    };
    let shards = if module.mesh.world() > 1 { " | shard | partition | simplify" } else { "" };
    // On stages, all forwards of a micro-batch come before its backwards: what is fused would be kept in between.
    let hoist = if trains { " | hoist-casts" } else { "" };
    let fuse = if trains && options.mesh.pp == 1 { " | fuse" } else { "" };
    // A cast that stands between a weight and its readers would be a second copy of it.
    let narrow = if trains || dtype == "f32" { String::new() } else { format!(" | narrow-weights{{dtype={dtype}}}") };
    format!("precision{{dtype={dtype}}}{recompute}{gradients} | inline{fuse}{hoist}{narrow} | simplify{shards}")
}

/// The last passes before a plan is made.
pub fn group(options: &Options, mesh: &types::Mesh) -> String {
    let overlap = match options.overlap {
        _ if mesh.world() == 1 => String::new(),
        Overlap::Off => String::new(),
        Overlap::Auto => "overlap | ".into(),
        Overlap::Pieces(count) => format!("overlap{{pieces={count}}} | "),
    };
    let group = if options.mesh.pp > 1 { "group{stages=true}" } else { "group" };
    format!("{overlap}{group}")
}

/// Whether each micro-batch of a pipeline would gather and scatter the same anew.
pub fn hoists_collectives(traced: &Traced, mesh: &args::Mesh) -> bool {
    let module = &traced.evaluated.module;
    let is_cut = |axes: &[Name]| axes.iter().any(|axis| module.mesh.size(axis) > 1);
    let in_parts = module.wishes.iter().any(|(wish, _)| matches!(wish, Wish::Store { axes, .. } if is_cut(axes)));
    mesh.pp > 1 && in_parts && traced.microbatches > 1
}

/// All passes from the traced graph to the programs that a plan is made of, as one pipeline.
pub fn whole_pipeline(traced: &Traced, options: &Options, policy: &MemoryPolicy) -> String {
    let once = if hoists_collectives(traced, &options.mesh) { " | hoist-collectives" } else { "" };
    let group = group(options, &traced.evaluated.module.mesh);
    let stages = match crate::mesh::stages(&options.mesh, &traced.evaluated.wishes) {
        Some(Stages { ranks, chunks, schedule, .. }) => {
            format!(" | stages{{ranks={ranks},chunks={chunks},schedule={}}}", schedule.name)
        }
        None => String::new(),
    };
    let remat = match policy.asks() {
        true => format!(" | {}", policy.remat(policy.budget.map_or(u64::MAX, |budget| budget.bytes)).text()),
        false => String::new(),
    };
    let residencies = if policy.sleeping_parameters { " | residencies" } else { "" };
    let graph = pipeline(traced, options);
    format!("{graph}{once} | {group} | unroll{stages}{residencies}{remat} | {}", passes::closing(policy))
}

/// Parses and runs a pipeline of passes over graphs.
pub fn run(
    text: &str,
    module: &mut Module,
    cx: &mut Context<'_>,
    sources: &mut Sources,
    after: impl FnMut(&str, &Module),
) -> Result<(), Diagnostics> {
    let start = Instant::now();
    parse(text, None, sources)?.run(module, cx, after)?;
    tracing::debug!(elapsed = ?start.elapsed(), "passes done");
    Ok(())
}

/// The same for passes of any kind; `stop` ends it after the pass of that name.
pub fn run_on(
    text: &str,
    stop: Option<&str>,
    form: &mut Form,
    cx: &mut Context<'_>,
    sources: &mut Sources,
) -> Result<(), Diagnostics> {
    parse(text, stop, sources)?.run_on(form, cx, |_, _| {})
}

fn parse(text: &str, stop: Option<&str>, sources: &mut Sources) -> Result<Pipeline, Diagnostics> {
    let source = sources.add("the pipeline", text);
    let whole = Pipeline::parse(text).map_err(|e| e.diagnostic(source))?;
    let Some(name) = stop else { return Ok(whole) };
    let legal = std::iter::once("eval").chain(whole.names()).collect::<Vec<_>>().join(", ");
    whole.until(name).ok_or_else(|| {
        Diagnostic::error(format!("the pipeline has no pass `{name}`"))
            .help(format!("stop after one of: {legal}"))
            .into()
    })
}
