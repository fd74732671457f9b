//! Stacks: tensors cut into equal pieces, pairs of stacks, and folds over them.

use std::rc::Rc;

use diag::{Diagnostic, Span};
use ir::ops;
use types::{GROUPS, MAX_STACK, Name};

use super::axes::position;
use crate::args::Args;
use crate::evaluator::Evaluator;
use crate::stop::Eval;
use crate::value::{Operand, Stack, Value};

pub const ON_TENSORS: &[&str] = &["chunks"];
pub const ON_STACKS: &[&str] = &["fold", "scan", "zip", "unzip", "recompute"];

/// `x.chunks(DIM, N)`: N equal pieces along the first dim.
pub fn chunks<'a>(ev: &mut Evaluator<'a>, x: Operand<'_>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    args.expect(2, "x.chunks(DIM, N)")?;
    let mut leaf = x.leaf.clone();
    if position(leaf.tensor(), args, 0, x)? == 1 && leaf.tensor().dims[0].name == *GROUPS {
        let mut order: Vec<Name> = leaf.tensor().dims.iter().map(|d| d.name.clone()).collect();
        order.swap(0, 1);
        leaf = ev.trace.op(ops::Transpose { order }, &[x], args.site)?;
    }
    let x = Operand { leaf: &leaf, ..x };
    let ty = leaf.tensor().clone();
    let at = position(&ty, args, 0, x)?;
    let count = args.count(1)?;
    let dim = &ty.dims[at];
    if at != 0 {
        return Err(Diagnostic::error(format!("`chunks` cuts the first dim, {} is dim {at}", dim.name))
            .at(args.span(0), "")
            .at(x.span, format!("this is `{ty}`"))
            .help("`.transpose([..])` first")
            .into());
    }
    if count == 0 || !dim.size.is_multiple_of(count) {
        return Err(Diagnostic::error(format!("{dim} does not fall into {count} equal pieces"))
            .at(args.span(1), "")
            .help("`.pad(DIM, 0, more, value)` first")
            .into());
    }
    if count > MAX_STACK {
        return Err(Diagnostic::error(format!("{dim} in {count} pieces, at most {MAX_STACK}"))
            .at(args.span(1), "")
            .note("what is done with each piece is written out in the plan")
            .help("make the pieces larger")
            .into());
    }
    let leaf = ev.trace.structure(x, args.site, |b, id| b.chunk(id, count))?;
    Ok(Value::Stack(Rc::new(Stack::equal(count, Value::Tensor(leaf), false, Some("chunks".into())))))
}

pub fn method<'a>(ev: &mut Evaluator<'a>, stack: &Stack<'a>, at: Span, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    match args.name.as_str() {
        "recompute" => {
            args.expect(0, "stack.recompute()")?;
            Ok(Value::Stack(Rc::new(Stack { recompute: true, ..stack.clone() })))
        }
        "zip" => {
            args.expect(1, "stack.zip(other)")?;
            let (Value::Stack(other), span) = args.get(0)? else {
                return Err(Diagnostic::error("`zip` takes another stack").at(args.span(0), "").into());
            };
            if other.count != stack.count {
                return Err(Diagnostic::error("stacks of different lengths")
                    .at(span, format!("this has {}", other.count))
                    .at(at, format!("this has {}", stack.count))
                    .into());
            }
            let (Some(own), Some(its)) = (stack.only(), other.only()) else {
                return Err(Diagnostic::error("`zip` pairs stacks of equal elements")
                    .at(at, "this stack, or the other, holds several kinds of modules")
                    .into());
            };
            let item = Value::tuple([own.clone(), its.clone()]);
            let recompute = stack.recompute || other.recompute;
            Ok(Value::Stack(Rc::new(Stack::equal(stack.count, item, recompute, stack.name.clone()))))
        }
        "unzip" => {
            args.expect(0, "stack.unzip()")?;
            let Some(Value::Tuple(pair)) = stack.only().filter(|item| matches!(item, Value::Tuple(p) if p.len() == 2))
            else {
                return Err(Diagnostic::error("`unzip` is for a stack of pairs").at(at, "").into());
            };
            let part = |item: &Value<'a>| {
                Value::Stack(Rc::new(Stack::equal(stack.count, item.clone(), stack.recompute, stack.name.clone())))
            };
            Ok(Value::tuple(pair.iter().map(part)))
        }
        "scan" => {
            args.expect(2, "stack.scan(first, |x, item| (x, out))")?;
            ev.scan(stack, args.get(0)?, args.get(1)?, args.site)
        }
        _ => {
            args.expect(2, "stack.fold(first, |x, item| ..)")?;
            ev.fold(stack, args.get(0)?, args.get(1)?, args.site)
        }
    }
}
