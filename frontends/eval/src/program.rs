//! The task: its function's parameters become the program's inputs, its value the outputs.

use std::rc::Rc;

use diag::{Diagnostic, PlaceId, Span};
use ir::{Feed, Function, Id, Input, Inst, Module, NodeId, Output, Program, State};
use types::{DType, Init, MAX_STACK, Name, Runs, TensorType};

use crate::call::{returned, typed_inputs};
use crate::evaluator::{Evaluator, Found, Scope};
use crate::instance::InstanceId;
use crate::stop::Eval;
use crate::suggest::{listed, nearest};
use crate::trace::FeedDeclaration;
use crate::value::{Leaf, Source, Stack, Value};

impl<'a> Evaluator<'a> {
    pub fn task(&mut self) -> Eval<'a, ()> {
        let (file, options) = (self.file(InstanceId::MODEL), self.options);
        let name = options.task.as_str();
        let tasks = file.tasks();
        let Some(task) = file.functions.get(name).filter(|_| tasks.contains(&name)) else {
            let mut error = Diagnostic::error(format!("this model has no task `{name}`"));
            if let Some(near) = nearest(name, tasks.iter().copied()) {
                error = error.help(format!("did you mean `{near}`?"));
            }
            return Err(error.help(format!("its tasks are {}", listed(tasks))).into());
        };
        match typed_inputs(&task.sig).as_slice() {
            [run] if crate::numbers::type_name(&run.ty).as_deref() == Some("Run") => {
                let mut scope = Scope::new(InstanceId::MODEL, PlaceId::NONE);
                self.bind(&mut scope, &run.pat, Value::Run)?;
                returned(self.block(&mut scope, &task.block))?;
                if self.runs.is_empty() {
                    return Err(Diagnostic::error(format!("`{name}` repeats no program"))
                        .at(self.span_in(InstanceId::MODEL, &task.sig.ident), "")
                        .help("write `run.repeat(step, STEPS);`")
                        .into());
                }
                self.count_runs();
                Ok(())
            }
            _ => {
                self.runs.push((Name::new(name), 1));
                self.trace_program(InstanceId::MODEL, task)
            }
        }
    }

    /// How often each program runs. One that runs once runs as often as the user asks: a train step.
    fn count_runs(&mut self) {
        if self.runs.iter().map(|(_, times)| times).sum::<usize>() <= 1 {
            return;
        }
        let repeated = self.trace.module.programs.iter_mut().filter(|p| p.runs == Runs::Asked);
        for program in repeated {
            let times = self.runs.iter().filter(|(name, _)| *name == program.name).map(|(_, times)| *times as u64);
            program.runs = Runs::Times(times.sum());
        }
    }

    /// `run.prepare(function)`: its results are values that the programs after it read as states.
    pub fn prepare(&mut self, instance: InstanceId, function: &'a syn::ItemFn, at: Span) -> Eval<'a, ()> {
        self.trace_as(Runs::Prepare, instance, function, at)
    }

    /// `run.offer(function)`.
    pub fn offer(&mut self, instance: InstanceId, function: &'a syn::ItemFn, at: Span) -> Eval<'a, ()> {
        self.trace_as(Runs::OnDemand, instance, function, at)
    }

    fn trace_as(&mut self, runs: Runs, instance: InstanceId, function: &'a syn::ItemFn, at: Span) -> Eval<'a, ()> {
        let name = function.sig.ident.to_string();
        if self.trace.module.program(&name).is_some() {
            return Err(Diagnostic::error(format!("`{name}` is a program of this task already")).at(at, "").into());
        }
        self.runs_as = runs;
        let traced = self.trace_program(instance, function);
        self.runs_as = Runs::Asked;
        self.runs.push((Name::from(name), 0));
        traced
    }

    /// `run.repeat(function, times)`.
    pub fn repeat(&mut self, instance: InstanceId, function: &'a syn::ItemFn, times: usize) -> Eval<'a, ()> {
        let name = Name::from(function.sig.ident.to_string());
        if self.trace.module.program(&name).is_none() {
            self.trace_program(instance, function)?;
        }
        self.runs.push((name, times));
        Ok(())
    }

    /// Traces a function with the program's inputs as arguments.
    fn trace_program(&mut self, instance: InstanceId, task: &'a syn::ItemFn) -> Eval<'a, ()> {
        let name = task.sig.ident.to_string();
        self.trace.feeds.clear();
        self.trace.open(false);
        let mut scope = Scope::new(instance, PlaceId::NONE);
        for input in typed_inputs(&task.sig) {
            let value = self.input(&mut scope, input)?;
            self.bind(&mut scope, &input.pat, value)?;
        }
        let value = returned(self.block(&mut scope, &task.block))?;
        let at = task.block.stmts.last().map_or(self.span_in(instance, &task.sig.ident), |s| self.span_in(instance, s));
        let value = match &task.sig.output {
            syn::ReturnType::Default => value,
            syn::ReturnType::Type(_, ty) => self.check_type(&mut scope, ty, value, at)?,
        };
        self.program(&name, value, at)
    }

    fn input(&mut self, scope: &mut Scope<'a>, input: &'a syn::PatType) -> Eval<'a, Value<'a>> {
        let at = self.span(scope, input);
        let name = match &*input.pat {
            syn::Pat::Ident(ident) => ident.ident.to_string().trim_start_matches('_').to_string(),
            _ => return Err(Diagnostic::error("an input of a task has a name").at(at, "").into()),
        };
        match &*input.ty {
            syn::Type::Reference(r) => {
                let model = crate::numbers::type_name(&r.elem).unwrap_or_default();
                match self.type_at(scope.instance, &r.elem) {
                    Some(Found::Struct(instance, declared)) if declared.module => self.model(instance, declared, at),
                    _ => Err(Diagnostic::error(format!("a task takes a model by reference, `{model}` is none"))
                        .at(at, "")
                        .help("a model is a struct with `#[derive(Module)]`")
                        .into()),
                }
            }
            syn::Type::Macro(ty) => {
                let state = ty.mac.path.is_ident("State");
                let declared = self.feed_type(scope, ty)?;
                self.trace.check_size(&declared, self.span(scope, ty))?;
                self.feed(scope, &name, declared, state, at)
            }
            syn::Type::Path(path) if inner_macro(path, "Stack").is_some() => {
                let ty = inner_macro(path, "Stack").ok_or_else(|| bad_input(at))?;
                self.family(scope, &name, ty, at)
            }
            syn::Type::Path(path) => match inner_macro(path, "Option") {
                Some(ty) => {
                    let declared = self.feed_type(scope, ty)?;
                    // An optional input is there when it has elements.
                    if declared.dims.iter().any(|dim| dim.size == 0) {
                        return Ok(Value::Option(None));
                    }
                    self.trace.check_size(&declared, self.span(scope, ty))?;
                    Ok(Value::some(self.feed(scope, &name, declared, false, at)?))
                }
                None => Err(bad_input(at)),
            },
            _ => Err(bad_input(at)),
        }
    }

    fn feed(
        &mut self,
        scope: &Scope<'a>,
        name: &str,
        declared: TensorType,
        state: bool,
        at: Span,
    ) -> Eval<'a, Value<'a>> {
        if state && self.prepared.iter().any(|prepared| *prepared == *name) {
            return self.prepared_value(scope, name, &declared, at);
        }
        // The working type is the model's own affair: data comes in f32.
        let work = declared.dtype == DType::Work;
        let ty = if work { declared.with_dtype(DType::F32) } else { declared };
        self.check_rows_first(name, &ty, at)?;
        let ty = self.grouped(ty);
        let leaf = self.declare_feed(FeedDeclaration { name: name.into(), ty, draw: None, state, count: None }, at)?;
        self.trace.node(&leaf, at)?;
        let site = self.site(scope, at);
        Ok(Value::Tensor(if work { self.cast_leaf(&leaf, DType::Work, at, site)? } else { leaf }))
    }

    /// `caches: Stack<State![LAYERS, B, S]>`: a state for each of LAYERS, 0 at the start.
    fn family(&mut self, scope: &mut Scope<'a>, name: &str, ty: &'a syn::TypeMacro, at: Span) -> Eval<'a, Value<'a>> {
        let span = self.span(scope, ty);
        let mut declared = self.feed_type(scope, ty)?;
        if !ty.mac.path.is_ident("State") || declared.dims.is_empty() || declared.dtype == DType::Work {
            return Err(Diagnostic::error("a stack among the inputs of a task is one of states")
                .at(span, "")
                .help("write `caches: Stack<State![LAYERS, B, S; f32]>`: the first axis counts the states")
                .into());
        }
        let count = declared.dims.remove(0).size;
        if !(1..=MAX_STACK).contains(&count) {
            return Err(Diagnostic::error(format!("a family of {count} states, at least 1 and at most {MAX_STACK}"))
                .at(span, "")
                .into());
        }
        self.trace.check_size(&declared, span)?;
        let ty = self.grouped(declared);
        let feed = FeedDeclaration { name: name.into(), ty, draw: None, state: true, count: Some(count) };
        let leaf = self.declare_feed(feed, at)?;
        self.trace.node(&leaf, at)?;
        Ok(Value::Stack(Rc::new(Stack::equal(count, Value::Tensor(leaf), false, Some(name.into())))))
    }

    /// The state of that name whose next value this is, if it is one of a family.
    fn next_of_family(&self, name: &Name, value: &Value<'a>, at: Span) -> Eval<'a, Option<(Name, Leaf)>> {
        let Some(feed) = self.trace.feeds.iter().find(|f| f.state && f.count.is_some() && f.name == *name) else {
            return Ok(None);
        };
        let given = match value {
            Value::Stack(stack) => stack.only().cloned(),
            _ => None,
        };
        match given {
            Some(Value::Tensor(leaf)) if leaf.ty == feed.full_type() => Ok(Some((feed.full_name(), leaf))),
            _ => Err(Diagnostic::error(format!("the next value of `{name}` is no stack of {}", feed.ty))
                .at(at, "")
                .help("`.scan(first, |x, item| (x, state))` gives the stack of all states")
                .into()),
        }
    }

    /// Other names that data may have for an input, but for those of other inputs.
    fn aliases(&self, feed: &str) -> Vec<Name> {
        let declared = self.file(InstanceId::MODEL).aliases.iter().filter(|(name, _)| name == feed);
        let aliases = declared.map(|(_, alias)| Name::from(alias.to_string()));
        aliases.filter(|alias| self.trace.feeds.iter().all(|other| other.name != *alias)).collect()
    }

    /// A value that `run.prepare` made, cast to the declared type.
    fn prepared_value(
        &mut self,
        scope: &Scope<'a>,
        name: &str,
        declared: &TensorType,
        at: Span,
    ) -> Eval<'a, Value<'a>> {
        let made = self.trace.module.states.get(name).and_then(|state| state.ty.tensor()).cloned();
        let Some(ty) = made.clone().filter(|made| made.dims == declared.dims) else {
            let made = made.map_or_else(|| "a stack".to_owned(), |made| made.to_string());
            let what = format!("`{name}` is prepared as {made}, and taken as {declared}");
            return Err(Diagnostic::error(what).at(at, "").into());
        };
        let casts = declared.dtype != DType::Work && declared.dtype != ty.dtype;
        let leaf =
            self.declare_feed(FeedDeclaration { name: name.into(), ty, draw: None, state: true, count: None }, at)?;
        self.trace.node(&leaf, at)?;
        let site = self.site(scope, at);
        Ok(Value::Tensor(if casts { self.cast_leaf(&leaf, declared.dtype, at, site)? } else { leaf }))
    }

    pub fn declare_feed(&mut self, feed: FeedDeclaration, at: Span) -> Eval<'a, Leaf> {
        if self.trace.feeds.iter().any(|f| f.name == feed.name) {
            return Err(Diagnostic::error(format!("two inputs are called `{}`", feed.name))
                .at(at, "the second")
                .into());
        }
        let leaf = Leaf { ty: feed.full_type(), source: Source::Feed(self.trace.feeds.len()) };
        self.trace.feeds.push(feed);
        Ok(leaf)
    }

    fn program(&mut self, task: &str, value: Value<'a>, at: Span) -> Eval<'a, ()> {
        let mut outputs = vec![];
        let mut results = vec![];
        if task == "train" {
            let leaf = self.output_leaf(value, at, DType::F32)?;
            if leaf.tensor().rank() != 0 {
                return Err(Diagnostic::error(format!("`train` returns `{}`, a loss is one number", leaf.ty))
                    .at(at, "")
                    .help("take a mean: `.mean()`")
                    .into());
            }
            outputs.push(Output::Loss("loss".into()));
            results.push((leaf, at));
        } else {
            let states: Vec<Name> = self.trace.feeds.iter().filter(|f| f.state).map(|f| f.name.clone()).collect();
            let named = named_outputs(value);
            if let Some((name, _)) = named.iter().find(|(name, _)| self.prepared.contains(name)) {
                return Err(Diagnostic::error(format!(
                    "`{name}` is prepared, and `{task}` gives a value of that name"
                ))
                .at(at, "")
                .help("a prepared value is written by `run.prepare` alone: give the other one another name")
                .into());
            }
            if self.runs_as == Runs::Prepare {
                return self.prepared_values(task, named, at);
            }
            let kept = |s: &&Name| !self.prepared.contains(*s) && !named.iter().any(|(n, _)| n == *s);
            if let Some(lost) = states.iter().find(kept) {
                return Err(Diagnostic::error(format!("the next value of state `{lost}` is missing"))
                    .at(at, "")
                    .help(format!("return a struct that has a field `{lost}`"))
                    .into());
            }
            for (name, value) in named {
                if let Some((family, leaf)) = self.next_of_family(&name, &value, at)? {
                    outputs.push(Output::State(family));
                    results.push((leaf, at));
                    continue;
                }
                let leaf = self.output_leaf(value, at, DType::F32)?;
                let counts = !leaf.tensor().dtype.is_float();
                if states.contains(&name) {
                    outputs.push(Output::State(name.clone()));
                    results.push((leaf.clone(), at));
                    if counts {
                        continue;
                    }
                }
                outputs.push(Output::Emit(name));
                results.push((self.ungrouped(leaf, at, crate::trace::Site { span: at, caller: PlaceId::NONE })?, at));
            }
        }
        self.close_program(task, outputs, &results, at)
    }

    /// The program is what was traced since it was opened.
    fn close_program(&mut self, task: &str, outputs: Vec<Output>, results: &[(Leaf, Span)], at: Span) -> Eval<'a, ()> {
        let closed = self.trace.close(task, results, |module, source| match source {
            Source::Parameter(name) => (0, module.parameters.get_index_of(name).unwrap_or(usize::MAX)),
            Source::Feed(i) => (1, *i),
            _ => (2, 0),
        })?;
        let function: Id<Function> = self.trace.add_function(closed.function);
        self.keep_marks(function, closed.marks, &Name::default());
        let mut inputs = vec![];
        for (param, source) in closed.captures.iter().enumerate() {
            inputs.push(match source {
                Source::Parameter(name) => Input::Parameter(name.clone()),
                Source::Feed(i) => {
                    let feed = &self.trace.feeds[*i];
                    match feed.state {
                        true => Input::State(feed.full_name()),
                        false => {
                            let indices = self.trace.module.indices(function, param).filter(|_| feed.draw.is_none());
                            let aliases = self.aliases(&feed.name);
                            Input::Feed(Feed { name: feed.name.clone(), aliases, draw: feed.draw, indices })
                        }
                    }
                }
                _ => return Err(Diagnostic::error("a task reads a value from nowhere").at(at, "").into()),
            });
        }
        let next = &self.trace.module.functions[function];
        let written: Vec<&Name> = (outputs.iter().zip(&next.results))
            .filter_map(|(output, &node)| match output {
                Output::State(name) if is_written(&self.trace.module, next, node) => Some(name),
                _ => None,
            })
            .collect();
        let mut states = vec![];
        for feed in self.trace.feeds.iter().filter(|f| f.state && !self.prepared.contains(&f.name)) {
            // What is counted or written to starts at 0, all else as noise.
            let name = feed.full_name();
            let noise = Init::Random(types::Distribution::Normal { mean: 0.0, std: 1.0 });
            let starts_as_noise = feed.ty.dtype.is_float() && feed.count.is_none() && !written.contains(&&name);
            let known = self.trace.module.states.get(&name).map(|state| state.init);
            let init = if starts_as_noise { known.unwrap_or(noise) } else { Init::Zeros };
            states.push((name, State { ty: feed.full_type(), init, of: None }));
        }
        self.trace.module.states.extend(states);
        let (name, runs) = (task.into(), self.runs_as);
        self.trace.module.programs.push(Program { name, runs, function, inputs, outputs, logical: vec![] });
        Ok(())
    }

    /// The results of a program that prepares: each is a state that no checkpoint holds.
    fn prepared_values(&mut self, task: &str, named: Vec<(Name, Value<'a>)>, at: Span) -> Eval<'a, ()> {
        if !self.trace.feeds.is_empty() {
            return Err(Diagnostic::error(format!("`{task}` prepares values, and takes inputs or draws"))
                .at(at, "")
                .help("prepared values follow from parameters alone: `pub fn prepare(model: &Model) -> Prepared`")
                .into());
        }
        let (mut outputs, mut results) = (vec![], vec![]);
        for (name, value) in named {
            let site = crate::trace::Site { span: at, caller: PlaceId::NONE };
            let leaf = self.leaf(value, at, site)?;
            if self.trace.module.states.contains_key(&name) || self.trace.module.parameters.contains_key(&name) {
                return Err(Diagnostic::error(format!("there is a state or a parameter `{name}` already"))
                    .at(at, "")
                    .into());
            }
            let state = State { ty: leaf.ty.clone(), init: Init::Zeros, of: None };
            self.trace.module.states.insert(name.clone(), state);
            self.prepared.push(name.clone());
            outputs.push(Output::State(name));
            results.push((leaf, at));
        }
        self.close_program(task, outputs, &results, at)
    }

    fn output_leaf(&mut self, value: Value<'a>, at: Span, to: DType) -> Eval<'a, Leaf> {
        let site = crate::trace::Site { span: at, caller: PlaceId::NONE };
        let leaf = self.leaf(value, at, site)?;
        if leaf.tensor().dtype.is_float() { self.cast_leaf(&leaf, to, at, site) } else { Ok(leaf) }
    }
}

/// A tensor is the output `out`; a struct's fields are outputs of their names.
fn named_outputs(value: Value<'_>) -> Vec<(Name, Value<'_>)> {
    match value {
        Value::Struct(s) => s.fields.clone(),
        value => vec![("out".into(), value)],
    }
}

fn bad_input<'a>(at: Span) -> crate::stop::Stop<'a> {
    Diagnostic::error("a task takes models and tensors")
        .at(at, "")
        .help("write `model: &Model`, `x: Tensor![B, S; i64]` or `x: Option<Tensor![..]>`")
        .into()
}

/// Whether a value is a state to which rows were written.
fn is_written(module: &Module, function: &Function, node: NodeId) -> bool {
    let of = |node: NodeId, result: usize| match &function.nodes[node].inst {
        Inst::Op(ir::Op::Write(_)) => true,
        Inst::Op(ir::Op::Cast(_)) => is_written(module, function, function.nodes[node].args[0]),
        Inst::Call(call) => {
            let callee = &module.functions[call.callee];
            callee.results.get(result).is_some_and(|&inner| is_written(module, callee, inner))
        }
        _ => false,
    };
    match function.nodes[node].inst {
        Inst::Get(i) => of(function.nodes[node].args[0], i),
        _ => of(node, 0),
    }
}

/// The macro in `Option<Tensor![..]>` or `Stack<State![..]>`.
fn inner_macro<'s>(path: &'s syn::TypePath, around: &str) -> Option<&'s syn::TypeMacro> {
    let last = path.path.segments.last().filter(|s| s.ident == around)?;
    let syn::PathArguments::AngleBracketed(inner) = &last.arguments else { return None };
    match inner.args.first()? {
        syn::GenericArgument::Type(syn::Type::Macro(m)) => Some(m),
        _ => None,
    }
}
