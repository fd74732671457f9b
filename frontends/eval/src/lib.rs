//! Evaluates .mm files and records their tensor operations as a graph.
//!
//! A .mm file is Rust syntax. It is parsed with syn and run at compile time: numbers, structs, closures and control
//! flow are gone afterwards, and each operation on a tensor has become a node.

mod args;
mod bounds;
mod brackets;
mod call;
mod config;
mod contract;
mod control;
mod directives;
mod ends;
mod evaluator;
mod expr;
mod file;
mod files;
mod fold;
mod instance;
mod leaves;
mod macros;
mod model;
mod numbers;
mod operator;
mod pattern;
mod probe;
mod program;
mod published;
mod ragged;
mod span;
mod stop;
mod suggest;
mod tables;
mod trace;
mod uses;
mod value;
mod vocabulary;

use diag::{Diagnostic, Diagnostics, PlaceId, SourceId, Sources, Span};
use indexmap::IndexMap;
use ir::{Input, Module};
use rustc_hash::FxHashSet;
use types::{Config, Name};

use crate::evaluator::{Evaluator, Number, Scope};
use crate::file::File;
use crate::instance::InstanceId;
use crate::macros::DimValue;
use crate::stop::Stop;
use crate::value::Value;

pub use config::Published;
pub use directives::{PlanDirective, PlanDirectives};
pub use files::{Load, Origin, Sibling};
pub use published::Setting;
pub use vocabulary::{schedules, words};

/// What to evaluate of a file, and under which settings.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The file's first preset if neither it nor a config is given.
    pub preset: Option<String>,
    /// A config of a class that the file declares, whose figures count in a preset's place.
    pub published: Option<Published>,
    /// Dims and constants, over the preset's.
    pub set: Vec<(String, String)>,
    pub task: String,
    /// The size of `B`, over the preset's.
    pub batch: Option<usize>,
    /// The size of `B` where neither the options nor the file give it one; at least 1.
    pub default_batch: usize,
    /// Data groups that the samples fall into, where a step has several: replicas of a micro-batch. Models without ragged axes
    /// do not need them.
    pub groups: Option<usize>,
    /// The type `stream` is the working type: residual streams are no wider than what they are the sums of.
    pub pure: bool,
    /// Names of files that `use` finds wherever the model lies, for messages.
    pub library: Vec<String>,
    /// Outputs of modules whose paths match this regular expression are results of the programs.
    pub probe: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Evaluated {
    /// One program called as the task, or several.
    pub module: Module,
    pub warnings: Diagnostics,
    /// Every dim with its size, in the order of declaration: the model's, then `visual.HEADS` of its instances that are used.
    pub dims: IndexMap<Name, usize>,
    /// Empty if the file has no presets.
    pub preset: String,
    pub task: String,
    /// Samples of all data groups.
    pub batch: usize,
    /// Data groups in the graph, if it has them.
    pub groups: Option<usize>,
    /// The task's programs, and how often each runs before the next: one program once, unless the task says otherwise.
    pub runs: Vec<(Name, usize)>,
    pub directives: PlanDirectives,
    /// How many modules each stack of the model has.
    pub stacks: Vec<usize>,
    /// What the configs of the classes that the file declares say, with the values under this preset.
    pub configs: Vec<Config>,
    /// Of a task that samples: the constants that it does so with.
    pub settings: Vec<Setting>,
}

/// What a file offers, by name.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The classes whose configs it declares.
    pub classes: Vec<String>,
    pub presets: Vec<String>,
    pub tasks: Vec<String>,
}

/// What a file offers; it is parsed, not evaluated.
pub fn offer(sources: &Sources, file: SourceId) -> Result<Offer, Diagnostics> {
    with_stack(|| {
        let file = File::parse(file, sources.path(file), sources.text(file)).map_err(Diagnostics)?;
        Ok(Offer {
            classes: file.configs.iter().map(|c| c.class()).collect(),
            presets: file.presets.iter().map(|p| p.name.clone()).collect(),
            tasks: file.tasks().into_iter().map(String::from).collect(),
        })
    })
}

/// Stack for parsing and evaluation, both of which recurse; their depth is bounded well below it.
const STACK_BYTES: usize = 256 << 20;

/// Evaluates one task of a model. `load` reads a file that it uses by its path from the model's folder, such as
/// `layers/norm.mm`.
pub fn evaluate(
    sources: &mut Sources,
    file: SourceId,
    options: &Options,
    load: &mut Load<'_>,
) -> Result<Evaluated, Diagnostics> {
    with_stack(|| {
        let files = files::read(sources, file, load, &options.library).map_err(Diagnostics)?;
        let mut ev = prepare(&files, options)?;
        check_numbers(&mut ev)?;
        finish(&mut ev, options).map_err(diagnostics)
    })
}

/// What the `plan` function of another file asks for, in place of the model's own. It speaks of the model's dims by
/// name, whether it brings them in with `use` or not.
pub fn directives(
    sources: &mut Sources,
    model: SourceId,
    plan: SourceId,
    options: &Options,
    load: &mut Load<'_>,
) -> Result<PlanDirectives, Diagnostics> {
    with_stack(|| {
        let files = files::read(sources, model, load, &options.library).map_err(Diagnostics)?;
        let plan = files::read_plan(sources, plan).map_err(Diagnostics)?;
        let mut ev = prepare(&files, options)?;
        if !plan.functions.contains_key("plan") {
            let whole = Span::new(plan.source, 0, 0);
            return Err(Diagnostic::error("this file has no plan")
                .at(whole, "")
                .help("write `pub fn plan(p: &mut Plan) { .. }`")
                .into());
        }
        let instance = ev.instances.add_plan(&plan);
        ev.plan_file = Some(instance);
        run_plan(&mut ev, instance).map_err(diagnostics)?;
        Ok(std::mem::take(&mut ev.directives))
    })
}

/// Runs `work` on a thread whose stack is large enough for any text that the bounds allow.
fn with_stack<T: Send>(work: impl FnOnce() -> Result<T, Diagnostics> + Send) -> Result<T, Diagnostics> {
    let panicked = || Diagnostics::from(Diagnostic::error("the evaluator failed on this file; this is a fault in mmc"));
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().name("evaluate".into()).stack_size(STACK_BYTES);
        match worker.spawn_scoped(scope, work) {
            Ok(handle) => handle.join().unwrap_or_else(|_| Err(panicked())),
            Err(e) => Err(Diagnostic::error(format!("no thread to evaluate on: {e}")).into()),
        }
    })
}

/// A warning for each place that makes parameters which no program reads.
fn unused_parameters(ev: &Evaluator<'_>) -> Vec<Diagnostic> {
    let inputs = ev.trace.module.programs.iter().flat_map(|p| &p.inputs);
    let read: FxHashSet<&Name> =
        inputs.filter_map(|i| if let Input::Parameter(n) = i { Some(n) } else { None }).collect();
    let mut unused: IndexMap<Span, Vec<&str>> = IndexMap::new();
    for (name, span) in ev.made.iter().filter(|(name, _)| !read.contains(name)) {
        unused.entry(*span).or_default().push(name);
    }
    let warn = |(span, names): (Span, Vec<&str>)| {
        let names = suggest::listed(names);
        Diagnostic::warning(format!("no program of this task reads {names}")).at(span, "made here")
    };
    unused.into_iter().map(warn).collect()
}

fn prepare<'a>(files: &'a [File], options: &'a Options) -> Result<Evaluator<'a>, Diagnostics> {
    let preset = match options.published {
        Some(_) => None,
        None => numbers::choose_preset(&files[0], options.preset.as_deref())?,
    };
    let ev = Evaluator::new(files, options, preset)?;
    ev.check_class()?;
    ev.check_settings().map_err(Diagnostics)?;
    Ok(ev)
}

fn diagnostics(stop: Stop<'_>) -> Diagnostics {
    match stop {
        Stop::Error(error) => Diagnostics::from(*error),
        Stop::Return(_) => Diagnostic::error("`return` outside of a function").into(),
    }
}

fn run_plan<'a>(ev: &mut Evaluator<'a>, instance: InstanceId) -> Result<(), Stop<'a>> {
    let Some(plan) = ev.file(instance).functions.get("plan") else { return Ok(()) };
    let mut scope = Scope::new(instance, PlaceId::NONE);
    for input in call::typed_inputs(&plan.sig) {
        ev.bind(&mut scope, &input.pat, Value::Plan)?;
    }
    call::returned(ev.block(&mut scope, &plan.block))?;
    Ok(())
}

/// Every number of the model's own file has a value, used or not; those of files that it uses have one where they are used.
fn check_numbers(ev: &mut Evaluator<'_>) -> Result<(), Diagnostics> {
    let (model, file) = (InstanceId::MODEL, ev.file(InstanceId::MODEL));
    for declared in file.dims.values().filter(|declared| !matches!(declared.value, DimValue::Free)) {
        ev.dim(model, declared, ev.span_in(model, &declared.ident)).map_err(diagnostics)?;
    }
    for declared in file.constants.values() {
        ev.constant(model, declared, ev.span_in(model, &declared.ident)).map_err(diagnostics)?;
    }
    Ok(())
}

/// The sizes of all dims that were computed, by their names; what a dim of a used file is given, it is.
fn sizes(ev: &Evaluator<'_>) -> IndexMap<Name, usize> {
    let mut dims = IndexMap::new();
    for (instance, of) in ev.instances.iter() {
        for name in of.file.dims.keys() {
            if let Some(Number::Done(Value::Dim(dim))) = ev.numbers.get(&(instance, name.clone())) {
                dims.entry(dim.name.clone()).or_insert(dim.size);
            }
        }
    }
    dims
}

fn finish<'a>(ev: &mut Evaluator<'a>, options: &Options) -> Result<Evaluated, Stop<'a>> {
    let presets = &ev.file(InstanceId::MODEL).presets;
    let preset = ev.preset.and_then(|i| presets.get(i)).map_or(String::new(), |p| p.name.clone());
    let path = if preset.is_empty() { options.task.clone() } else { format!("{preset}.{}", options.task) };
    ev.trace.module.name = Name::from(path);
    let unread = ev.check_published()?;
    ev.task()?;
    run_plan(ev, InstanceId::MODEL)?;
    ev.trace.module.ragged = ev.ragged_axes()?;
    ev.probe()?;
    let configs = ev.configs()?;
    let (settings, unfollowed) = (ev.settings()?, ev.check_scheduler());
    let dims = sizes(ev);
    let warnings = Diagnostics(unread.into_iter().chain(unfollowed).chain(unused_parameters(ev)).collect());
    Ok(Evaluated {
        module: std::mem::take(&mut ev.trace.module),
        warnings,
        batch: dims.get(macros::BATCH).copied().unwrap_or(1) * ev.groups().unwrap_or(1),
        groups: ev.groups(),
        dims,
        preset,
        task: options.task.clone(),
        runs: std::mem::take(&mut ev.runs),
        directives: std::mem::take(&mut ev.directives),
        stacks: std::mem::take(&mut ev.stacks),
        configs,
        settings,
    })
}
