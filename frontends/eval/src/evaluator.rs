//! The evaluator's state, its limits, and how names find their items.

use diag::{Diagnostic, Diagnostics, PlaceId, SourceId, Span};
use ir::Id;
use rustc_hash::FxHashMap;
use syn::spanned::Spanned;
use types::{DType, Name, Runs};

use crate::file::{File, Link, StructDeclaration};
use crate::instance::{InstanceId, Instances};
use crate::macros::DimDeclaration;
use crate::span::span_of;
use crate::stop::{Eval, Stop};
use crate::trace::{Mark, Site, Tracer};
use crate::value::Value;
use crate::{Options, PlanDirectives};

/// Calls within calls.
const MAX_DEPTH: usize = 64;
/// What a closure is called in messages.
pub const CLOSURE: &str = "this closure";
/// Expressions evaluated in all.
const MAX_STEPS: u64 = 3_000_000;

/// A traced method: calls with equal arguments share it.
#[derive(Clone)]
pub struct Memo<'a> {
    pub function: Id<ir::Function>,
    /// Which argument leaf each parameter is.
    pub params: Vec<usize>,
    pub result: Value<'a>,
    pub frame: u32,
}

/// A dim or constant that is being computed, or is done.
pub enum Number<'a> {
    Pending,
    Done(Value<'a>),
}

pub struct Evaluator<'a> {
    pub instances: Instances<'a>,
    pub options: &'a Options,
    pub preset: Option<usize>,
    pub trace: Tracer,
    pub directives: PlanDirectives,
    pub numbers: FxHashMap<(InstanceId, String), Number<'a>>,
    pub memo: FxHashMap<String, Memo<'a>>,
    /// Models that programs take, by instance and name: programs share their parameters.
    pub models: FxHashMap<(InstanceId, String), Value<'a>>,
    /// The instance of a file that holds a plan only.
    pub plan_file: Option<InstanceId>,
    /// Where each parameter is made.
    pub made: Vec<(Name, Span)>,
    /// Programs and how often each runs, in order.
    pub runs: Vec<(Name, usize)>,
    /// When the program that is traced runs.
    pub runs_as: Runs,
    /// Modules of each stack.
    pub stacks: Vec<usize>,
    /// States that `run.prepare` made.
    pub prepared: Vec<Name>,
    /// Of functions of the graph: where modules compute in them, if that is asked for.
    pub marks: FxHashMap<Id<ir::Function>, Vec<Mark>>,
    /// Where the modules stand whose methods are traced, outermost first.
    pub modules: Vec<Name>,
    calls: Vec<Frame>,
    steps: u64,
}

/// What a call runs.
#[derive(Clone, Copy)]
pub struct Callee<'n> {
    pub name: &'n str,
    pub declared: Span,
}

/// A call that has not returned yet.
struct Frame {
    name: String,
    declared: Span,
}

/// The message for calls that nest too deep: whether one function calls itself, or the chain of different ones.
fn too_deep(calls: &[Frame], at: Span) -> Diagnostic {
    let last = calls.len() - 1;
    let repeats =
        |period: usize| (0..3 * period).all(|i| calls[last - i].declared == calls[last - i - period].declared);
    let name = |frame: &Frame| match frame.name.as_str() {
        CLOSURE => CLOSURE.to_owned(),
        name => format!("`{name}`"),
    };
    let chain = |frames: &[Frame]| frames.iter().map(name).collect::<Vec<_>>().join(", ");
    if let Some(period) = (1..=last / 4).find(|p| repeats(*p)) {
        let around = match period {
            1 => String::new(),
            2..=5 => format!(", through {}", chain(&calls[last + 1 - period..last])),
            _ => format!(", through {} others", period - 1),
        };
        return Diagnostic::error(format!(
            "{} calls itself{around}, more than {MAX_DEPTH} calls deep",
            name(&calls[last])
        ))
        .at(at, format!("{MAX_DEPTH} calls deep here"))
        .help("recursion must end at compile time; a stack of equal modules is folded instead");
    }
    let (head, tail) = (chain(&calls[..3]), chain(&calls[last - 2..]));
    Diagnostic::error(format!("calls nest deeper than {MAX_DEPTH}"))
        .at(at, format!("{MAX_DEPTH} calls deep here"))
        .note(format!("the chain is {head}, .., {tail}"))
        .help("call the last of them from one of the first")
}

/// The variables of one function's activation.
pub struct Scope<'a> {
    /// That of the file where the code stands.
    pub instance: InstanceId,
    pub vars: Vec<(String, Value<'a>)>,
    /// Variables below this index belong to the place where a closure was written; they cannot be assigned.
    pub floor: usize,
    pub caller: PlaceId,
    pub self_type: Option<&'a StructDeclaration>,
}

impl<'a> Scope<'a> {
    pub fn new(instance: InstanceId, caller: PlaceId) -> Self {
        Self { instance, vars: vec![], floor: 0, caller, self_type: None }
    }

    pub fn set(&mut self, name: impl Into<String>, value: Value<'a>) {
        self.vars.push((name.into(), value));
    }

    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.vars.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v)
    }
}

#[derive(Clone, Copy)]
pub enum Found<'a> {
    Dim(InstanceId, &'a DimDeclaration),
    Constant(InstanceId, &'a syn::ItemConst),
    Struct(InstanceId, &'a StructDeclaration),
    Function(InstanceId, &'a syn::ItemFn),
    Module(InstanceId),
}

impl<'a> Evaluator<'a> {
    /// The first of the files is the model's.
    pub fn new(files: &'a [File], options: &'a Options, preset: Option<usize>) -> Result<Self, Diagnostics> {
        Ok(Self {
            instances: Instances::of(files).map_err(Diagnostics)?,
            options,
            preset,
            trace: Tracer::default(),
            directives: PlanDirectives::default(),
            numbers: FxHashMap::default(),
            memo: FxHashMap::default(),
            models: FxHashMap::default(),
            plan_file: None,
            made: vec![],
            runs: vec![],
            runs_as: Runs::Asked,
            stacks: vec![],
            prepared: vec![],
            marks: FxHashMap::default(),
            modules: vec![],
            calls: vec![],
            steps: 0,
        })
    }

    pub fn file(&self, instance: InstanceId) -> &'a File {
        self.instances[instance].file
    }

    pub fn source(&self, instance: InstanceId) -> SourceId {
        self.file(instance).source
    }

    pub fn span(&self, scope: &Scope<'a>, syntax: &impl Spanned) -> Span {
        self.span_in(scope.instance, syntax)
    }

    pub fn span_in(&self, instance: InstanceId, syntax: &impl Spanned) -> Span {
        span_of(self.source(instance), syntax)
    }

    pub fn site(&self, scope: &Scope<'a>, span: Span) -> Site {
        Site { span, caller: scope.caller }
    }

    /// What the type `stream` is.
    pub fn stream(&self) -> DType {
        if self.options.pure { DType::Work } else { DType::F32 }
    }

    /// Counts one expression.
    pub fn step(&mut self, scope: &Scope<'a>, syntax: &impl Spanned) -> Eval<'a, ()> {
        self.steps += 1;
        if self.steps <= MAX_STEPS {
            return Ok(());
        }
        Err(Diagnostic::error(format!("evaluation takes more than {MAX_STEPS} steps"))
            .at(self.span(scope, syntax), "still at work here")
            .help("a loop or a chain of calls runs too long; stacks of equal modules are folded, not looped over")
            .into())
    }

    /// Runs one call, unless calls nest too deep.
    pub fn nested<T>(
        &mut self,
        callee: Callee<'_>,
        at: Span,
        run: impl FnOnce(&mut Self) -> Eval<'a, T>,
    ) -> Eval<'a, T> {
        self.calls.push(Frame { name: callee.name.into(), declared: callee.declared });
        let result = if self.calls.len() > MAX_DEPTH { Err(too_deep(&self.calls, at).into()) } else { run(self) };
        self.calls.pop();
        result
    }

    /// Runs one call of a function written in the file; an error from inside also shows where the call stands.
    pub fn call_in<T>(
        &mut self,
        callee: Callee<'_>,
        at: Span,
        run: impl FnOnce(&mut Self) -> Eval<'a, T>,
    ) -> Eval<'a, T> {
        /// Labels of one message, beyond which callers are left out.
        const MAX_LABELS: usize = 5;
        let result = self.nested(callee, at, run);
        match result {
            Err(Stop::Error(mut error)) if error.labels.len() < MAX_LABELS => {
                if !error.labels.iter().any(|(span, _)| *span == at) {
                    error.labels.push((at, "in this call".into()));
                }
                Err(Stop::Error(error))
            }
            result => result,
        }
    }

    /// The item called `name` as the file of an instance sees it.
    pub fn find(&self, instance: InstanceId, name: &str) -> Option<Found<'a>> {
        // A plan of its own file speaks the model's names.
        let model = || (self.plan_file == Some(instance)).then(|| self.find_in(InstanceId::MODEL, name)).flatten();
        model().or_else(|| self.find_in(instance, name))
    }

    fn find_in(&self, instance: InstanceId, name: &str) -> Option<Found<'a>> {
        let f = self.file(instance);
        if let Some(d) = f.dims.get(name) {
            return Some(Found::Dim(instance, d));
        }
        if let Some(c) = f.constants.get(name) {
            return Some(Found::Constant(instance, c));
        }
        if let Some(s) = f.structs.get(name) {
            return Some(Found::Struct(instance, s));
        }
        if let Some(function) = f.functions.get(name) {
            return Some(Found::Function(instance, function));
        }
        let modules = &self.instances[instance].modules;
        f.links.iter().find_map(|link| match link {
            Link::Module { local, .. } if local == name => modules.get(name).map(|of| Found::Module(*of)),
            Link::Item { local, name: there, module } if local == name => {
                self.find_in(*modules.get(module.as_str())?, there)
            }
            Link::All { module } => self.find_in(*modules.get(module.as_str())?, name),
            _ => None,
        })
    }

    /// The instance that a path of modules leads to from another.
    pub fn module_at<S: AsRef<str>>(&self, from: InstanceId, modules: &[S]) -> Option<InstanceId> {
        modules.iter().try_fold(from, |at, module| match self.find(at, module.as_ref()) {
            Some(Found::Module(of)) => Some(of),
            _ => None,
        })
    }

    /// The item at a path such as `visual::Tower`.
    pub fn find_path(&self, from: InstanceId, path: &syn::Path) -> Option<Found<'a>> {
        let segments: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        let (name, modules) = segments.split_last()?;
        self.find(self.module_at(from, modules)?, name)
    }

    /// The struct, or what else, that a type names.
    pub fn type_at(&self, from: InstanceId, ty: &syn::Type) -> Option<Found<'a>> {
        match ty {
            syn::Type::Path(path) => self.find_path(from, &path.path),
            _ => None,
        }
    }

    /// Every name that the file of an instance knows.
    pub fn known_names(&self, instance: InstanceId) -> Vec<&'a str> {
        let file = self.file(instance);
        let mut names: Vec<&str> = file.names().collect();
        let modules = &self.instances[instance].modules;
        for link in &file.links {
            match link {
                Link::Module { local, .. } | Link::Item { local, .. } => names.push(local),
                Link::All { module } => {
                    names.extend(modules.get(module.as_str()).iter().flat_map(|of| self.file(**of).names()));
                }
            }
        }
        names
    }
}
