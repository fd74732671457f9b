//! The evaluator's state, its limits, and how names find their items.

use diag::{Diagnostic, PlaceId, Span};
use indexmap::IndexMap;
use ir::Id;
use rustc_hash::FxHashMap;
use syn::spanned::Spanned;
use types::{Name, Runs};

use crate::file::{File, StructDeclaration};
use crate::macros::DimDeclaration;
use crate::span::span_of;
use crate::stop::{Eval, Stop};
use crate::trace::{Site, Tracer};
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
    pub files: &'a [File],
    /// For each file, which file each of its siblings is.
    pub siblings: &'a [FxHashMap<String, usize>],
    pub options: &'a Options,
    pub preset: Option<usize>,
    pub trace: Tracer,
    pub directives: PlanDirectives,
    pub numbers: FxHashMap<(usize, String), Number<'a>>,
    pub memo: FxHashMap<String, Memo<'a>>,
    /// Models that programs take, by file and name: programs share their parameters.
    pub models: FxHashMap<(usize, String), Value<'a>>,
    /// The file that holds a plan only.
    pub plan_file: Option<usize>,
    /// Where each parameter is made.
    pub made: Vec<(Name, Span)>,
    /// Programs and how often each runs, in order.
    pub runs: Vec<(Name, usize)>,
    /// When the program that is traced runs.
    pub runs_as: Runs,
    /// States that `run.prepare` made.
    pub prepared: Vec<Name>,
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
    pub file: usize,
    pub vars: Vec<(String, Value<'a>)>,
    /// Variables below this index belong to the place where a closure was written; they cannot be assigned.
    pub floor: usize,
    pub caller: PlaceId,
    pub self_type: Option<&'a StructDeclaration>,
}

impl<'a> Scope<'a> {
    pub fn new(file: usize, caller: PlaceId) -> Self {
        Self { file, vars: vec![], floor: 0, caller, self_type: None }
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
    Dim(usize, &'a DimDeclaration),
    Constant(usize, &'a syn::ItemConst),
    Struct(usize, &'a StructDeclaration),
    Function(usize, &'a syn::ItemFn),
}

impl<'a> Evaluator<'a> {
    pub fn new(
        files: &'a [File],
        siblings: &'a [FxHashMap<String, usize>],
        options: &'a Options,
        preset: Option<usize>,
    ) -> Self {
        Self {
            files,
            siblings,
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
            prepared: vec![],
            calls: vec![],
            steps: 0,
        }
    }

    pub fn span(&self, scope: &Scope<'a>, syntax: &impl Spanned) -> Span {
        self.span_in(scope.file, syntax)
    }

    pub fn span_in(&self, file: usize, syntax: &impl Spanned) -> Span {
        span_of(self.files[file].source, syntax)
    }

    pub fn site(&self, scope: &Scope<'a>, span: Span) -> Site {
        Site { span, caller: scope.caller }
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

    /// The item called `name` as file number `file` sees it.
    pub fn find(&self, file: usize, name: &str) -> Option<Found<'a>> {
        // A plan of its own file speaks the model's names.
        let model = || (self.plan_file == Some(file)).then(|| self.find_through(0, name, 0)).flatten();
        model().or_else(|| self.find_through(file, name, 0))
    }

    fn find_through(&self, file: usize, name: &str, hops: usize) -> Option<Found<'a>> {
        let f = &self.files[file];
        if let Some(d) = f.dims.get(name) {
            return Some(Found::Dim(file, d));
        }
        if let Some(c) = f.constants.get(name) {
            return Some(Found::Constant(file, c));
        }
        if let Some(s) = f.structs.get(name) {
            return Some(Found::Struct(file, s));
        }
        if let Some(function) = f.functions.get(name) {
            return Some(Found::Function(file, function));
        }
        if hops >= 4 {
            return None;
        }
        f.uses.iter().find_map(|u| {
            let sibling = *self.siblings[file].get(&u.sibling)?;
            match &u.names {
                Some((local, original)) if local == name => self.find_through(sibling, original, hops + 1),
                Some(_) => None,
                None => self.find_through(sibling, name, hops + 1),
            }
        })
    }

    /// Every name that file number `file` declares.
    pub fn known_names(&self, file: usize) -> Vec<&'a str> {
        let f = &self.files[file];
        fn keys<V>(map: &IndexMap<String, V>) -> impl Iterator<Item = &str> {
            map.keys().map(String::as_str)
        }
        let mut names: Vec<&str> = keys(&f.dims).chain(keys(&f.constants)).chain(keys(&f.structs)).collect();
        names.extend(keys(&f.functions));
        for u in &f.uses {
            match (&u.names, self.siblings[file].get(&u.sibling)) {
                (Some((local, _)), _) => names.push(local),
                (None, Some(&sibling)) => names.extend(keys(&self.files[sibling].dims)),
                _ => {}
            }
        }
        names
    }
}
