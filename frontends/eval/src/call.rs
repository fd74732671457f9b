//! Calls: user functions and closures run in place; methods of modules become functions of the graph, each traced once
//! for every kind of arguments.

use std::rc::Rc;

use diag::{Diagnostic, Span};
use ir::Call;
use syn::{FnArg, ReturnType, Signature};

use crate::args::Args;
use crate::contract::FreeDims;
use crate::evaluator::{CLOSURE, Callee, Evaluator, Memo, Scope};
use crate::file::StructDeclaration;
use crate::instance::InstanceId;
use crate::leaves::{fingerprint, leaves, map_leaves};
use crate::stop::{Eval, Stop};
use crate::suggest::nearest;
use crate::trace::Site;
use crate::value::{Closure, Function, Leaf, Source, StructKind, Value};
use crate::vocabulary;
use types::Name;

/// A function's syntax and where it stands.
#[derive(Clone, Copy)]
pub struct Body<'a> {
    pub instance: InstanceId,
    pub owner: Option<&'a StructDeclaration>,
    pub sig: &'a Signature,
    pub block: &'a syn::Block,
}

pub type Given<'a> = Vec<(Value<'a>, Span)>;

impl<'a> Evaluator<'a> {
    pub fn call_expr(&mut self, scope: &mut Scope<'a>, call: &'a syn::ExprCall) -> Eval<'a, Value<'a>> {
        let callee = self.expr(scope, &call.func)?;
        let items = self.given(scope, &call.args)?;
        let site = self.site(scope, self.span(scope, call));
        match callee {
            // A closure called by its name shows as a caller; one that the vocabulary runs stands in the call itself.
            Value::Closure(ref closure) => {
                let declared = self.span_in(closure.instance, closure.syntax);
                let closure = Callee { name: CLOSURE, declared };
                self.call_in(closure, site.span, |this| this.invoke(callee, items, site))
            }
            callee => self.invoke(callee, items, site),
        }
    }

    fn given(&mut self, scope: &mut Scope<'a>, args: impl IntoIterator<Item = &'a syn::Expr>) -> Eval<'a, Given<'a>> {
        args.into_iter().map(|e| Ok((self.expr(scope, e)?, self.span(scope, e)))).collect()
    }

    pub fn invoke(&mut self, callee: Value<'a>, mut items: Given<'a>, site: Site) -> Eval<'a, Value<'a>> {
        match callee {
            Value::Function(Function::Free { instance, syntax }) => {
                let body = Body { instance, owner: None, sig: &syntax.sig, block: &syntax.block };
                self.run_inline(body, None, items, site)
            }
            Value::Function(Function::Associated { instance, owner, syntax }) => {
                let body = Body { instance, owner: Some(owner), sig: &syntax.sig, block: &syntax.block };
                if syntax.sig.receiver().is_none() {
                    return self.run_inline(body, None, items, site);
                }
                if items.is_empty() {
                    return Err(Diagnostic::error(format!("`{}` needs a `self`", syntax.sig.ident))
                        .at(site.span, "")
                        .into());
                }
                let (receiver, _) = items.remove(0);
                self.run_method(body, receiver, items, site)
            }
            Value::Function(Function::Vocabulary(name)) => {
                vocabulary::call(self, name, &Args { name: name.into(), site, items })
            }
            Value::Closure(closure) => self.run_closure(&closure, items, site),
            other => Err(Diagnostic::error(format!("{} cannot be called", other.describe())).at(site.span, "").into()),
        }
    }

    pub fn method_call(&mut self, scope: &mut Scope<'a>, call: &'a syn::ExprMethodCall) -> Eval<'a, Value<'a>> {
        let receiver = self.expr(scope, &call.receiver)?;
        let at_receiver = self.span(scope, &*call.receiver);
        let items = self.given(scope, &call.args)?;
        let name = call.method.to_string();
        // The method and its arguments, without the chain before it.
        let mut span = self.span(scope, &call.method);
        span.end = self.span(scope, call).end.max(span.end);
        let site = self.site(scope, span);
        if let Value::Struct(s) = &receiver
            && let StructKind::User { instance, declaration } = s.kind
        {
            if let Some(syntax) = declaration.methods.get(&name) {
                let body = Body { instance, owner: Some(declaration), sig: &syntax.sig, block: &syntax.block };
                let path = s.path.clone();
                let value = self.run_method(body, receiver, items, site)?;
                self.mark_output(&path, &name, &value);
                return Ok(value);
            }
            if !vocabulary::any_value_has(&name) {
                let mut error = Diagnostic::error(format!("`{}` has no method `{name}`", declaration.name))
                    .at(self.span(scope, &call.method), "not found");
                if let Some(near) = nearest(&name, declaration.methods.keys().map(String::as_str)) {
                    error = error.help(format!("did you mean `{near}`?"));
                }
                return Err(error.into());
            }
        }
        let path = if let Value::Struct(s) = &receiver { s.path.clone() } else { Name::default() };
        let args = Args { name, site, items };
        let value = vocabulary::method(self, receiver, at_receiver, &args)?;
        self.mark_output(&path, &args.name, &value);
        Ok(value)
    }

    pub fn run_closure(&mut self, closure: &Rc<Closure<'a>>, items: Given<'a>, site: Site) -> Eval<'a, Value<'a>> {
        let syntax = closure.syntax;
        if syntax.inputs.len() != items.len() {
            return Err(Diagnostic::error(format!(
                "this closure takes {} arguments, here are {}",
                syntax.inputs.len(),
                items.len()
            ))
            .at(site.span, "called here")
            .at(self.span_in(closure.instance, syntax), "the closure")
            .into());
        }
        let caller = self.trace.module.places.add(site.span, site.caller);
        let mut scope = Scope::new(closure.instance, caller);
        scope.vars.clone_from(&closure.captured);
        scope.floor = scope.vars.len();
        scope.self_type = closure.self_type;
        let declared = self.span_in(closure.instance, syntax);
        self.nested(Callee { name: CLOSURE, declared }, site.span, |this| {
            for (pattern, (value, span)) in syntax.inputs.iter().zip(items) {
                match pattern {
                    syn::Pat::Type(typed) => {
                        let value = this.check_type(&mut scope, &typed.ty, value, span)?;
                        this.bind(&mut scope, &typed.pat, value)?;
                    }
                    pattern => this.bind(&mut scope, pattern, value)?,
                }
            }
            returned(this.expr(&mut scope, &syntax.body))
        })
    }

    /// Runs a function as part of the caller's.
    fn run_inline(
        &mut self,
        body: Body<'a>,
        receiver: Option<Value<'a>>,
        items: Given<'a>,
        site: Site,
    ) -> Eval<'a, Value<'a>> {
        let caller = self.trace.module.places.add(site.span, site.caller);
        let mut scope = Scope::new(body.instance, caller);
        scope.self_type = body.owner;
        let items = self.check_arguments(&mut scope, body, items, site, FreeDims::Alias)?;
        self.run_body(scope, body, receiver, items, site)
    }

    /// Arguments against the signature; binds free dims in `scope`.
    fn check_arguments(
        &mut self,
        scope: &mut Scope<'a>,
        body: Body<'a>,
        items: Given<'a>,
        site: Site,
        free: FreeDims,
    ) -> Eval<'a, Given<'a>> {
        let declared = typed_inputs(body.sig);
        if declared.len() != items.len() {
            let s = if declared.len() == 1 { "" } else { "s" };
            return Err(Diagnostic::error(format!(
                "`{}` takes {} argument{s}, {} given",
                body.sig.ident,
                declared.len(),
                if items.len() == 1 { "1 is".into() } else { format!("{} are", items.len()) }
            ))
            .at(site.span, "in this call")
            .at(self.span_in(body.instance, &body.sig.ident), "declared here")
            .into());
        }
        let pairs = declared.into_iter().zip(items);
        pairs
            .map(|(p, (value, span))| {
                let checked = self.check(scope, &p.ty, value, span, free);
                Ok((checked.map_err(|stop| self.in_instance(stop, body))?, span))
            })
            .collect()
    }

    /// A violated contract says whose it is, where a file has instances.
    fn in_instance(&self, stop: Stop<'a>, body: Body<'a>) -> Stop<'a> {
        let instance = &self.instances[body.instance];
        match stop {
            Stop::Error(mut error) if !instance.name.is_empty() => {
                let owner = body.owner.map_or(String::new(), |owner| format!("{}::", owner.name));
                let function = format!("`{owner}{}`", body.sig.ident);
                error.notes.push(format!("{function} of `{}`, an instance of {}", instance.name, instance.file.path));
                Stop::Error(error)
            }
            stop => stop,
        }
    }

    fn run_body(
        &mut self,
        mut scope: Scope<'a>,
        body: Body<'a>,
        receiver: Option<Value<'a>>,
        items: Given<'a>,
        site: Site,
    ) -> Eval<'a, Value<'a>> {
        if let Some(receiver) = receiver {
            scope.set("self", receiver);
        }
        let name = match body.owner {
            Some(owner) => format!("{}::{}", owner.name, body.sig.ident),
            None => body.sig.ident.to_string(),
        };
        let callee = Callee { name: &name, declared: self.span_in(body.instance, &body.sig.ident) };
        self.call_in(callee, site.span, |this| {
            for (declared, (value, _)) in typed_inputs(body.sig).into_iter().zip(items) {
                this.bind(&mut scope, &declared.pat, value)?;
            }
            let value = returned(this.block(&mut scope, body.block))?;
            match &body.sig.output {
                ReturnType::Default => Ok(value),
                ReturnType::Type(_, ty) => {
                    let last = body.block.stmts.last();
                    let at =
                        last.map_or(this.span_in(body.instance, &body.sig.ident), |s| this.span_in(body.instance, s));
                    this.check_type(&mut scope, ty, value, at).map_err(|stop| this.in_instance(stop, body))
                }
            }
        })
    }

    pub fn run_method(
        &mut self,
        body: Body<'a>,
        receiver: Value<'a>,
        items: Given<'a>,
        site: Site,
    ) -> Eval<'a, Value<'a>> {
        let Some(owner) = body.owner.filter(|o| o.module) else {
            return self.run_inline(body, Some(receiver), items, site);
        };
        let caller = self.trace.module.places.add(site.span, site.caller);
        let mut scope = Scope::new(body.instance, caller);
        scope.self_type = body.owner;
        // Arguments first, then the module's parameters: each leaf becomes an argument of the new function.
        let mut outside: Vec<(Leaf, Span)> = vec![];
        for (value, span) in items.iter().chain([&(receiver.clone(), site.span)]) {
            outside.extend(leaves(value).into_iter().map(|l| (l, *span)));
        }
        let items = self.check_arguments(&mut scope, body, items, site, FreeDims::Rename)?;
        let mut key = format!("{}.{}.{}:", body.instance.index(), owner.name, body.sig.ident);
        let mut shareable = items.iter().all(|(v, _)| fingerprint(v, &mut key));
        shareable &= fingerprint(&receiver, &mut key);
        let path = if let Value::Struct(s) = &receiver { s.path.clone() } else { Name::default() };
        if let Some(memo) = self.memo.get(&key).filter(|_| shareable).cloned() {
            self.trace.callee = self.options.probe.as_ref().map(|_| path);
            return self.replay(&memo, &outside, site);
        }
        let frame = self.trace.open(false);
        let mut count = 0;
        let mut inside = |value: &Value<'a>| {
            map_leaves::<Stop<'a>>(value, &mut |leaf| {
                count += 1;
                Ok(Leaf { ty: leaf.ty.clone(), source: Source::Arg(frame, count - 1) })
            })
        };
        let mut inner = vec![];
        for (value, span) in &items {
            inner.push((inside(value)?, *span));
        }
        let receiver = inside(&receiver)?;
        self.modules.push(path.clone());
        let traced = self.run_body(scope, body, Some(receiver), inner, site);
        self.modules.pop();
        let name = format!("{}.{}", owner.name, body.sig.ident);
        let memo = self.close_method(traced, frame, (&name, &path), &outside, site)?;
        let (memo, foreign) = match memo {
            Traced::Function(memo, foreign) => (memo, foreign),
            Traced::Value(value) => return Ok(value),
        };
        if shareable && foreign.is_empty() {
            self.memo.insert(key, memo.clone());
        }
        outside.extend(foreign);
        self.trace.callee = self.options.probe.as_ref().map(|_| path);
        self.replay(&memo, &outside, site)
    }

    fn close_method(
        &mut self,
        traced: Eval<'a, Value<'a>>,
        frame: u32,
        (name, path): (&str, &Name),
        outside: &[(Leaf, Span)],
        site: Site,
    ) -> Eval<'a, Traced<'a>> {
        let value = match traced {
            Ok(value) => value,
            Err(stop) => {
                self.trace.abandon();
                return Err(stop);
            }
        };
        // Leaves computed inside become results; those handed through go back to what they are outside.
        let mut results: Vec<(Leaf, Span)> = vec![];
        let result = map_leaves::<Stop<'a>>(&value, &mut |leaf| match &leaf.source {
            Source::Node(f, _) if *f == frame => {
                results.push((leaf.clone(), site.span));
                Ok(Leaf { ty: leaf.ty.clone(), source: Source::Node(frame, ir::NodeId::new(results.len() - 1)) })
            }
            _ => Ok(leaf.clone()),
        })?;
        if results.is_empty() {
            self.trace.abandon();
            let value = map_leaves::<Stop<'a>>(&result, &mut |leaf| Ok(handed_through(leaf, frame, outside)))?;
            return Ok(Traced::Value(value));
        }
        let types = |leaf: &Source| match leaf {
            Source::Arg(f, i) if *f == frame => (0, *i),
            _ => (1, 0),
        };
        let closed = self.trace.close(name, &results, |_, source| types(source))?;
        let mut foreign = vec![];
        let mut params = vec![];
        for (source, &param) in closed.captures.iter().zip(&closed.function.params) {
            params.push(match source {
                Source::Arg(f, i) if *f == frame => *i,
                other => {
                    let ty = closed.function.ty(param).clone();
                    foreign.push((Leaf { ty, source: other.clone() }, site.span));
                    outside.len() + foreign.len() - 1
                }
            });
        }
        let function = self.trace.add_function(closed.function);
        self.keep_marks(function, closed.marks, path);
        Ok(Traced::Function(Memo { function, params, result, frame }, foreign))
    }

    /// Calls a traced function with these leaves.
    fn replay(&mut self, memo: &Memo<'a>, outside: &[(Leaf, Span)], site: Site) -> Eval<'a, Value<'a>> {
        let operands: Vec<(Leaf, Span)> = memo.params.iter().filter_map(|&i| outside.get(i).cloned()).collect();
        let results = self.trace.call(Call::once(memo.function), &operands, site)?;
        map_leaves::<Stop<'a>>(&memo.result, &mut |leaf| match &leaf.source {
            Source::Node(f, i) if *f == memo.frame => results
                .get(i.index())
                .cloned()
                .ok_or_else(|| Diagnostic::error("a call lost a result").at(site.span, "").into()),
            _ => Ok(handed_through(leaf, memo.frame, outside)),
        })
    }
}

enum Traced<'a> {
    Function(Memo<'a>, Vec<(Leaf, Span)>),
    /// Nothing was computed.
    Value(Value<'a>),
}

/// An argument that a function returns untouched is what the caller gave.
fn handed_through(leaf: &Leaf, frame: u32, outside: &[(Leaf, Span)]) -> Leaf {
    match &leaf.source {
        Source::Arg(f, i) if *f == frame => outside.get(*i).map_or_else(|| leaf.clone(), |(l, _)| l.clone()),
        _ => leaf.clone(),
    }
}

/// Parameters but for `self`.
pub fn typed_inputs(sig: &Signature) -> Vec<&syn::PatType> {
    let inputs = sig.inputs.iter();
    inputs.filter_map(|arg| if let FnArg::Typed(p) = arg { Some(p) } else { None }).collect()
}

/// A function's value: of its last expression, or of `return`.
pub fn returned<'a>(result: Eval<'a, Value<'a>>) -> Eval<'a, Value<'a>> {
    match result {
        Err(Stop::Return(value)) => Ok(*value),
        result => result,
    }
}
