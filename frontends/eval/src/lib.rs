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
mod fold;
mod leaves;
mod macros;
mod model;
mod numbers;
mod operator;
mod pattern;
mod program;
mod published;
mod span;
mod stop;
mod suggest;
mod tables;
mod trace;
mod value;
mod vocabulary;

use diag::{Diagnostic, Diagnostics, PlaceId, SourceId, Sources, Span};
use indexmap::IndexMap;
use ir::{Input, Module};
use rustc_hash::{FxHashMap, FxHashSet};
use types::{Config, Name};

use crate::evaluator::{Evaluator, Scope};
use crate::file::File;
use crate::macros::DimValue;
use crate::stop::Stop;
use crate::value::Value;

pub use config::Published;
pub use directives::{PlanDirective, PlanDirectives};
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
}

#[derive(Clone, Debug)]
pub struct Evaluated {
    /// One program called as the task, or several.
    pub module: Module,
    pub warnings: Diagnostics,
    /// Every dim of the file with its size, in the order of declaration.
    pub dims: IndexMap<Name, usize>,
    /// Empty if the file has no presets.
    pub preset: String,
    pub task: String,
    pub batch: usize,
    /// The task's programs, and how often each runs before the next: one program once, unless the task says otherwise.
    pub runs: Vec<(Name, usize)>,
    pub directives: PlanDirectives,
    /// What the configs of the classes that the file declares say, with the values under this preset.
    pub configs: Vec<Config>,
}

/// Another file that a model names with `use`.
pub struct Sibling {
    /// As messages call it.
    pub path: String,
    pub text: String,
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
        let file = File::parse(file, sources.text(file)).map_err(Diagnostics)?;
        Ok(Offer {
            classes: file.configs.iter().map(|c| c.class()).collect(),
            presets: file.presets.iter().map(|p| p.name.clone()).collect(),
            tasks: file.tasks().into_iter().map(String::from).collect(),
        })
    })
}

/// Stack for parsing and evaluation, both of which recurse; their depth is bounded well below it.
const STACK_BYTES: usize = 256 << 20;

/// Evaluates one task of a model. `load` reads a sibling file by its name, such as `other.mm`.
pub fn evaluate(
    sources: &mut Sources,
    file: SourceId,
    options: &Options,
    load: &mut dyn FnMut(&str) -> Option<Sibling>,
) -> Result<Evaluated, Diagnostics> {
    let (texts, siblings) = gather(sources, file, load);
    with_stack(|| {
        let files = parse(&texts, &siblings)?;
        let mut ev = prepare(&files, &siblings, options)?;
        finish(&mut ev, options, &files).map_err(diagnostics)
    })
}

/// What the `plan` function of another file asks for, in place of the model's own. It speaks of the model's dims by
/// name, whether it brings them in with `use` or not.
pub fn directives(
    sources: &mut Sources,
    model: SourceId,
    plan: SourceId,
    options: &Options,
    load: &mut dyn FnMut(&str) -> Option<Sibling>,
) -> Result<PlanDirectives, Diagnostics> {
    let (mut texts, mut siblings) = gather(sources, model, load);
    texts.push((plan, sources.text(plan).to_string()));
    // All it may name is the model's.
    siblings.push(used_siblings(sources.text(plan)).into_iter().map(|name| (name, 0)).collect());
    with_stack(|| {
        let files = parse(&texts, &siblings)?;
        let mut ev = prepare(&files, &siblings, options)?;
        let last = files.len() - 1;
        ev.plan_file = Some(last);
        if !files[last].functions.contains_key("plan") {
            let whole = Span::new(files[last].source, 0, 0);
            return Err(Diagnostic::error("this file has no plan")
                .at(whole, "")
                .help("write `pub fn plan(p: &mut Plan) { .. }`")
                .into());
        }
        run_plan(&mut ev, last).map_err(diagnostics)?;
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

/// The file and its siblings, with for each the position of the siblings it names.
#[allow(clippy::type_complexity)]
fn gather(
    sources: &mut Sources,
    file: SourceId,
    load: &mut dyn FnMut(&str) -> Option<Sibling>,
) -> (Vec<(SourceId, String)>, Vec<FxHashMap<String, usize>>) {
    const MAX_FILES: usize = 64;
    let mut texts = vec![(file, sources.text(file).to_string())];
    let mut known: IndexMap<String, usize> = IndexMap::new();
    let mut siblings = vec![];
    let mut at = 0;
    while at < texts.len() {
        let mut named = FxHashMap::default();
        for module in used_siblings(&texts[at].1) {
            if let Some(&i) = known.get(&module) {
                named.insert(module, i);
            } else if texts.len() < MAX_FILES
                && let Some(Sibling { path, text }) = file_names(&module).into_iter().find_map(|name| load(&name))
            {
                let id = sources.add(path, text.clone());
                texts.push((id, text));
                known.insert(module.clone(), texts.len() - 1);
                named.insert(module, texts.len() - 1);
            }
        }
        siblings.push(named);
        at += 1;
    }
    (texts, siblings)
}

/// Modules after `use super::` or `use crate::`. A name that is no `use` after all only costs a look.
fn used_siblings(text: &str) -> Vec<String> {
    let mut found: Vec<String> = vec![];
    for line in text.lines() {
        let line = line.trim_start().trim_start_matches("pub ").trim_start();
        let Some(path) = line.strip_prefix("use ").map(str::trim_start) else { continue };
        let Some(rest) = path.strip_prefix("super::").or_else(|| path.strip_prefix("crate::")) else { continue };
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if !name.is_empty() && !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

/// `wan2_2` is `wan2_2.mm`, or `wan2.2.mm`.
fn file_names(module: &str) -> Vec<String> {
    let chars: Vec<char> = module.chars().collect();
    let dotted: String = (0..chars.len())
        .map(|i| {
            let between_digits =
                i > 0 && chars[i - 1].is_ascii_digit() && chars.get(i + 1).is_some_and(char::is_ascii_digit);
            if chars[i] == '_' && between_digits { '.' } else { chars[i] }
        })
        .collect();
    let mut names = vec![format!("{module}.mm"), format!("{dotted}.mm")];
    names.dedup();
    names
}

fn parse(texts: &[(SourceId, String)], siblings: &[FxHashMap<String, usize>]) -> Result<Vec<File>, Diagnostics> {
    let mut files = vec![];
    let mut errors = vec![];
    for (i, (id, text)) in texts.iter().enumerate() {
        match File::parse(*id, text) {
            Ok(file) => {
                for u in file.uses.iter().filter(|u| !siblings[i].contains_key(&u.sibling)) {
                    let names = file_names(&u.sibling).join("` or `");
                    errors
                        .push(Diagnostic::error(format!("there is no file `{names}` beside this one")).at(u.span, ""));
                }
                files.push(file);
            }
            Err(found) => errors.extend(found),
        }
    }
    if errors.is_empty() { Ok(files) } else { Err(Diagnostics(errors)) }
}

fn prepare<'a>(
    files: &'a [File],
    siblings: &'a [FxHashMap<String, usize>],
    options: &'a Options,
) -> Result<Evaluator<'a>, Diagnostics> {
    let preset = match options.published {
        Some(_) => None,
        None => numbers::choose_preset(&files[0], options.preset.as_deref())?,
    };
    let ev = Evaluator::new(files, siblings, options, preset);
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

fn run_plan<'a>(ev: &mut Evaluator<'a>, file: usize) -> Result<(), Stop<'a>> {
    let files = ev.files;
    let Some(plan) = files[file].functions.get("plan") else { return Ok(()) };
    let mut scope = Scope::new(file, PlaceId::NONE);
    for input in call::typed_inputs(&plan.sig) {
        ev.bind(&mut scope, &input.pat, Value::Plan)?;
    }
    call::returned(ev.block(&mut scope, &plan.block))?;
    Ok(())
}

fn finish<'a>(ev: &mut Evaluator<'a>, options: &Options, files: &'a [File]) -> Result<Evaluated, Stop<'a>> {
    let mut dims = IndexMap::new();
    for (name, declared) in &files[0].dims {
        if !matches!(declared.value, DimValue::Free) {
            let at = ev.span_in(0, &declared.ident);
            dims.insert(Name::new(name), ev.dim(0, declared, at)?.size);
        }
    }
    for declared in files[0].constants.values() {
        let at = ev.span_in(0, &declared.ident);
        ev.constant(0, declared, at)?;
    }
    let preset = ev.preset.and_then(|i| files[0].presets.get(i)).map_or(String::new(), |p| p.name.clone());
    let path = if preset.is_empty() { options.task.clone() } else { format!("{preset}.{}", options.task) };
    ev.trace.module.name = Name::from(path);
    let unread = ev.check_published()?;
    ev.task()?;
    run_plan(ev, 0)?;
    let configs = ev.configs()?;
    let warnings = Diagnostics(unread.into_iter().chain(unused_parameters(ev)).collect());
    Ok(Evaluated {
        module: std::mem::take(&mut ev.trace.module),
        warnings,
        batch: dims.get("B").copied().unwrap_or(1),
        dims,
        preset,
        task: options.task.clone(),
        runs: std::mem::take(&mut ev.runs),
        directives: std::mem::take(&mut ev.directives),
        configs,
    })
}
