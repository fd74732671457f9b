//! Folds: a body traced once, called for every element of a stack.

use std::rc::Rc;

use diag::{Diagnostic, Span};
use ir::{Call, Type};

use crate::evaluator::Evaluator;
use crate::leaves::{leaves, map_leaves};
use crate::stop::{Eval, Stop};
use crate::trace::Site;
use crate::value::{Leaf, Run, Source, Stack, Value};

impl<'a> Evaluator<'a> {
    /// `stack.fold(first, |x, item| ..)`: the tensors in `first` are carried, what the closure captures is shared, and
    /// the items' leaves come from the stack.
    pub fn fold(
        &mut self,
        stack: &Stack<'a>,
        (first, at_first): (Value<'a>, Span),
        body: (Value<'a>, Span),
        site: Site,
    ) -> Eval<'a, Value<'a>> {
        let mut value = self.only_tensors(first, at_first, site)?;
        for run in &stack.runs {
            value = self.fold_run(stack, run, (value, at_first), body.clone(), false, site)?.0;
        }
        Ok(value)
    }

    /// `stack.scan(first, |x, item| (x, out))`: what is carried in the end, and the stack of what each turn gave beside it.
    pub fn scan(
        &mut self,
        stack: &Stack<'a>,
        (first, at_first): (Value<'a>, Span),
        body: (Value<'a>, Span),
        site: Site,
    ) -> Eval<'a, Value<'a>> {
        let first = self.only_tensors(first, at_first, site)?;
        let (true, [run]) = (stack.only().is_some(), stack.runs.as_slice()) else {
            return Err(Diagnostic::error("`scan` is for stacks of equal elements")
                .at(site.span, "this one holds several kinds of modules")
                .into());
        };
        let (last, given) = self.fold_run(stack, run, (first, at_first), body, true, site)?;
        let given = given.map(|item| Value::Stack(Rc::new(Stack::equal(stack.count, item, false, None))));
        Ok(Value::tuple([last].into_iter().chain(given)))
    }

    fn fold_run(
        &mut self,
        stack: &Stack<'a>,
        run: &Run<'a>,
        (first, at_first): (Value<'a>, Span),
        body: (Value<'a>, Span),
        gives: bool,
        site: Site,
    ) -> Eval<'a, (Value<'a>, Option<Value<'a>>)> {
        let carried = leaves(&first);
        let elements: Vec<Leaf> = run.slots.iter().flat_map(|slot| leaves(&slot.item)).collect();
        let frame = self.trace.open(true);
        let result = self.fold_body(run, &first, at_first, body, (gives, frame), site);
        let ((result, given), handed_on) = match result {
            Ok(value) => value,
            Err(stop) => {
                self.trace.abandon();
                return Err(stop);
            }
        };
        let role = |source: &Source| match source {
            Source::Arg(f, i) if *f == frame && *i < carried.len() => (0, *i),
            Source::Arg(f, i) if *f == frame => (2, *i),
            _ => (1, 0),
        };
        let name = stack.name.as_deref().unwrap_or("fold").to_string();
        let mut closed = self.trace.close(&name, &handed_on, |_, source| role(source))?;
        closed.function.recompute = stack.recompute;
        let mut operands = vec![];
        let mut shared = 0;
        for (source, &param) in closed.captures.iter().zip(&closed.function.params) {
            operands.push(match (role(source).0, source) {
                (0, Source::Arg(_, i)) => (carried[*i].clone(), at_first),
                (2, Source::Arg(_, i)) => (elements[*i - carried.len()].clone(), site.span),
                (_, other) => {
                    shared += 1;
                    (Leaf { ty: closed.function.ty(param).clone(), source: other.clone() }, site.span)
                }
            });
        }
        let callee = self.trace.add_function(closed.function);
        let module = self.modules.last().cloned().unwrap_or_default();
        self.keep_marks(callee, closed.marks, &module);
        self.trace.callee = self.options.probe.as_ref().map(|_| module);
        let call = Call { callee, times: Some(run.times), carried: carried.len(), shared, reverse: false };
        let mut results = self.trace.call(call, &operands, site)?.into_iter();
        let mut named = |value: &Value<'a>| {
            map_leaves::<Stop<'a>>(value, &mut |leaf| Ok(results.next().unwrap_or_else(|| leaf.clone())))
        };
        Ok((named(&result)?, given.as_ref().map(named).transpose()?))
    }

    /// Traces the body for each element of a period; the last one's value, what it gives beside it, and the leaves of both.
    #[allow(clippy::type_complexity)]
    fn fold_body(
        &mut self,
        run: &Run<'a>,
        first: &Value<'a>,
        at_first: Span,
        (body, at_body): (Value<'a>, Span),
        (gives, frame): (bool, u32),
        site: Site,
    ) -> Eval<'a, ((Value<'a>, Option<Value<'a>>), Vec<(Leaf, Span)>)> {
        let mut count = 0;
        let mut inside = |leaf: &Leaf| {
            count += 1;
            let ty = leaf.tensor().clone();
            Ok::<_, Stop<'a>>(Leaf::new(ty, Source::Arg(frame, count - 1)))
        };
        let start = map_leaves(first, &mut inside)?;
        let items: Vec<Value<'a>> =
            run.slots.iter().map(|slot| map_leaves(&slot.item, &mut inside)).collect::<Eval<'a, _>>()?;
        let before = leaves(&start);
        for leaf in &before {
            self.trace.node(leaf, at_first)?;
        }
        let (mut result, mut beside) = (start, None);
        for item in items {
            let given = vec![(result, at_first), (item, at_body)];
            result = self.invoke(body.clone(), given, site)?;
            if gives {
                let pair = match result {
                    Value::Tuple(pair) => <[Value<'a>; 2]>::try_from(pair.to_vec()).ok(),
                    _ => None,
                };
                let Some([carried, given]) = pair else {
                    return Err(Diagnostic::error("a scan's closure returns a pair")
                        .at(at_body, "")
                        .help("what it carries, and what it gives for this element: `(x, state)`")
                        .into());
                };
                result = carried;
                beside = Some(self.only_tensors(given, at_body, site)?);
            }
            result = self.only_tensors(result, at_body, site)?;
            handed_on(&before, &leaves(&result), at_body, at_first)?;
        }
        let beside_too = beside.iter().flat_map(leaves);
        let handed_on = leaves(&result).into_iter().chain(beside_too).map(|l| (l, at_body)).collect();
        Ok(((result, beside), handed_on))
    }

    /// A tensor, or a tuple or array of tensors.
    fn only_tensors(&mut self, value: Value<'a>, at: Span, site: Site) -> Eval<'a, Value<'a>> {
        match value {
            Value::Tensor(leaf) if matches!(leaf.ty, Type::Tensor(_)) => Ok(Value::Tensor(leaf)),
            Value::Param(p) => Ok(Value::Tensor(self.leaf(Value::Param(p), at, site)?)),
            Value::Tuple(items) => {
                let items: Eval<'a, Vec<_>> = items.iter().map(|v| self.only_tensors(v.clone(), at, site)).collect();
                Ok(Value::Tuple(items?.into()))
            }
            Value::Array(items) => {
                let items: Eval<'a, Vec<_>> = items.iter().map(|v| self.only_tensors(v.clone(), at, site)).collect();
                Ok(Value::Array(items?.into()))
            }
            other => Err(Diagnostic::error(format!("a fold carries tensors, this is {}", other.describe()))
                .at(at, "")
                .help("write a number as `constant(0.0, f32)`")
                .into()),
        }
    }
}

/// That a body's results have the types of what it was given.
fn handed_on<'a>(before: &[Leaf], after: &[Leaf], at_body: Span, at_first: Span) -> Eval<'a, ()> {
    let differ = |what: String| {
        Diagnostic::error("a fold hands on what it was given")
            .at(at_body, what)
            .at(at_first, "it starts with this")
            .help("the closure returns the same number of tensors, each of the same type")
    };
    if before.len() != after.len() {
        return Err(differ(format!("{} tensors come out, {} went in", after.len(), before.len())).into());
    }
    for (old, new) in before.iter().zip(after) {
        if old.ty != new.ty {
            return Err(differ(format!("`{}` comes out, `{}` went in", new.ty, old.ty)).into());
        }
    }
    Ok(())
}
