//! Finding, reading and evaluating models.

use std::path::Path;

use clap::ValueEnum;
use diag::{Diagnostic, Diagnostics, SourceId, Sources};
use eval::{Evaluated, Origin, Published, Sibling};
use ir::Module;
use passes::{MeshOptions, Options, PrecisionMode, SizedConstants, WorkType};

use crate::args::{self, Model};
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
    match named(path) {
        Some((name, text)) => Ok(sources.add(name, text)),
        None => Ok(sources.add(path.display().to_string(), read(path, "the model", input::MOST_TEXT)?)),
    }
}

/// The built-in model of that name, where there is no such file.
fn named(path: &Path) -> Option<(&str, &'static str)> {
    path.to_str().filter(|_| !path.exists()).and_then(|name| Some((name, built_in::text(name)?)))
}

/// Reads what a model uses: beside it, else among the built-in files, where what built-in files use is.
fn siblings(model: &Path) -> impl FnMut(&str, Origin) -> Option<Sibling> + Send {
    let is_file = !model.is_dir() && named(model).is_none();
    let folder = is_file.then(|| model.parent().unwrap_or(Path::new("")).to_owned());
    move |name, of| {
        let beside = folder.as_ref().filter(|_| of == Origin::Folder).map(|folder| folder.join(name));
        let read = beside.and_then(|path| Some((input::text(&path, input::MOST_TEXT).ok()?, path)));
        match read {
            Some((text, path)) => Some(Sibling { path: path.display().to_string(), text, origin: Origin::Folder }),
            None => {
                let text = built_in::used(name)?.to_owned();
                Some(Sibling { path: name.to_owned(), text, origin: Origin::BuiltIn })
            }
        }
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
    Ok((file, Some(config.published()?)))
}

/// A traced model with the mesh it is for.
pub struct Traced {
    /// Of one micro-batch of all replicas.
    pub evaluated: Evaluated,
    /// Micro-batches in a step.
    pub microbatches: u32,
    /// Of a step of several: the constants that the number of samples is in.
    pub sized: Option<SizedConstants>,
    /// What is asked for, or what the plan says.
    pub precision: Option<PrecisionMode>,
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

pub fn trace(args: &Model, policy: &Options, sources: &mut Sources) -> Result<Traced, Diagnostics> {
    if let (Some(WorkType::F32), Some(precision)) = (policy.dtype, policy.precision) {
        let word = precision.to_possible_value().map_or(String::new(), |value| value.get_name().to_string());
        return Err(Diagnostic::error(format!("--precision {word} computes in bf16, and --dtype f32 does not"))
            .help("leave one of them out")
            .into());
    }
    let first = trace_in(args, policy, policy.precision, sources)?;
    // In f32 everything is as wide as everything else.
    let open = policy.precision.is_none() && policy.dtype != Some(WorkType::F32);
    match crate::directives::precision(&first.evaluated)?.filter(|_| open) {
        Some(PrecisionMode::Pure) => trace_in(args, policy, Some(PrecisionMode::Pure), sources),
        planned => Ok(Traced { precision: first.precision.or(planned), ..first }),
    }
}

fn trace_in(
    args: &Model,
    policy: &Options,
    precision: Option<PrecisionMode>,
    sources: &mut Sources,
) -> Result<Traced, Diagnostics> {
    let (mesh, pure) = (&policy.mesh, precision == Some(PrecisionMode::Pure));
    crate::mesh::refuse(mesh, args.batch)?;
    let microbatches = crate::mesh::microbatches(mesh, args.batch);
    let groups = |microbatches| {
        let samples = crate::mesh::micro_batch(mesh, microbatches, args.batch)?;
        Ok::<_, Diagnostics>(crate::mesh::groups(mesh, microbatches, samples))
    };
    let evaluated = evaluate(args, (mesh, pure), microbatches, groups(microbatches)?, sources)?;
    let mut traced = Traced { evaluated, microbatches, sized: None, precision };
    if microbatches > 1 && traced.evaluated.module.trains() {
        traced.sized = sized(args, (mesh, pure), microbatches, &traced.evaluated.module, sources);
    }
    // Micro-batches that nobody asked for are for tasks that train.
    if microbatches == 1 || mesh.microbatches.is_some() || traced.evaluated.module.trains() {
        return Ok(traced);
    }
    let evaluated = evaluate(args, (mesh, pure), 1, groups(1)?, sources)?;
    Ok(Traced { evaluated, microbatches: 1, sized: None, precision })
}

/// The constants of a micro-batch that are others in the whole batch, which is traced to find them.
fn sized(
    args: &Model,
    (mesh, pure): (&MeshOptions, bool),
    microbatches: u32,
    part: &Module,
    sources: &Sources,
) -> Option<SizedConstants> {
    let samples = crate::mesh::micro_batch(mesh, microbatches, args.batch).ok()?;
    let batch = u32::try_from(samples).ok()?.checked_mul(microbatches)?;
    let whole = Model { batch: Some(batch), ..args.clone() };
    let groups = crate::mesh::groups(mesh, microbatches, samples).map(|groups| groups * microbatches as usize);
    let evaluated = evaluate(&whole, (mesh, pure), 1, groups, &mut sources.clone()).ok()?;
    SizedConstants::of(part, &evaluated.module, microbatches as usize)
}

fn evaluate(
    args: &Model,
    (mesh, pure): (&MeshOptions, bool),
    microbatches: u32,
    groups: Option<usize>,
    sources: &mut Sources,
) -> Result<Evaluated, Diagnostics> {
    let _span = tracing::info_span!("evaluate").entered();
    let (file, published) = find(args, sources)?;
    let micro_batch = crate::mesh::micro_batch(mesh, microbatches, args.batch)?;
    let options = eval::Options {
        preset: args.preset.clone(),
        published,
        set: args.set.clone(),
        task: args.task.clone(),
        batch: args.batch.map(|_| micro_batch),
        default_batch: micro_batch,
        groups,
        pure,
        library: built_in::names().chain(built_in::layers()).map(String::from).collect(),
        probe: args.probe.clone(),
    };
    let mut sibling = siblings(&args.model);
    let mut evaluated = eval::evaluate(sources, file, &options, &mut sibling)?;
    if let Some(path) = &args.plan {
        let plan = load(path, sources)?;
        evaluated.directives = eval::directives(sources, file, plan, &options, &mut sibling)?;
    }
    crate::mesh::plan(mesh, &mut evaluated)?;
    Ok(evaluated)
}
