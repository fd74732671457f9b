//! Tensors from nowhere: counts, constants, powers for tables, and random draws.

use std::rc::Rc;

use diag::{Diagnostic, PlaceId};
use ir::{Array, ops};
use types::{DType, Dim, Distribution, Init, TensorType};

use super::tensor;
use crate::args::Args;
use crate::evaluator::Evaluator;
use crate::operator::number_like;
use crate::stop::Eval;
use crate::trace::FeedDeclaration;
use crate::value::{Operand, Source, Value};

pub fn call<'a>(ev: &mut Evaluator<'a>, name: &str, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    match name {
        "iota" => iota(ev, args),
        "powers" => powers(ev, args),
        "constant" => {
            args.expect(2, "constant(0.0, f32)")?;
            let (value, span) = args.get(0)?;
            Ok(Value::Tensor(number_like(&value, args.dtype(1)?, span)?))
        }
        "zeros" => {
            args.expect(2, "zeros([A, B], f32)")?;
            let (dims, dtype) = (ev.with_groups(args.dims(0)?), args.dtype(1)?);
            let zero = number_like(&Value::Int(0), dtype, args.site.span)?;
            if dims.is_empty() {
                return Ok(Value::Tensor(zero));
            }
            ev.trace.check_size(&TensorType::new(dtype, dims.iter().cloned()), args.site.span)?;
            let zero = Operand { leaf: &zero, span: args.site.span };
            Ok(Value::Tensor(ev.trace.op(ops::Broadcast { dims }, &[zero], args.site)?))
        }
        "uniform" => {
            args.expect(2, "uniform([B], 0.0..1.0)")?;
            let (lo, hi) = args.interval(1)?;
            Ok(Value::Draw(Rc::new((Distribution::Uniform { lo, hi }, args.dims(0)?))))
        }
        "normal" => {
            args.expect(1, "normal(0.02)")?;
            let std = args.number(0)?;
            if !((std as f32).is_finite() && std >= 0.0) {
                return Err(Diagnostic::error(format!("a normal distribution with the standard deviation {std}"))
                    .at(args.span(0), format!("this is {std}"))
                    .help("give a finite number of 0 or more")
                    .into());
            }
            Ok(Value::Init(Init::Random(Distribution::Normal { mean: 0.0, std })))
        }
        "normal_like" => {
            args.expect(1, "normal_like(x)")?;
            let dims: Vec<Dim> = tensor(ev, args, 0)?.tensor().dims.to_vec();
            Ok(Value::Draw(Rc::new((Distribution::Normal { mean: 0.0, std: 1.0 }, dims))))
        }
        _ => draw(ev, args),
    }
}

/// `iota(DIM, f32)`: 0, 1, 2 ... along a dim. Whole numbers are made at run time, floating ones are a table.
fn iota<'a>(ev: &mut Evaluator<'a>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    args.expect(2, "iota(DIM, f32)")?;
    let (dim, dtype) = (args.dim(0)?, args.dtype(1)?);
    if dtype == DType::Work || dtype == DType::Bool {
        return Err(Diagnostic::error(format!("`iota` counts in a whole or floating type, not in {dtype}"))
            .at(args.span(1), "")
            .help("write `iota(DIM, f32)` or `iota(DIM, i64)`, and cast")
            .into());
    }
    Ok(Value::Tensor(ev.trace.op(ops::Iota { dim, dtype }, &[], args.site)?))
}

/// `powers(base, x)`: base to the power of each element of a table.
fn powers<'a>(ev: &mut Evaluator<'a>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    args.expect(2, "powers(10_000.0, x)")?;
    let (base, x) = (args.number(0)?, tensor(ev, args, 1)?);
    let Source::Const(array) = &x.source else {
        return Err(Diagnostic::error("`powers` is for tables that are known at compile time")
            .at(args.span(1), "this is computed at run time")
            .help("write `(x * base.ln()).exp()`")
            .into());
    };
    if !(base > 0.0 && base.is_finite()) {
        return Err(Diagnostic::error(format!("`powers` of the base {base}"))
            .at(args.span(0), format!("this is {base}"))
            .help("give a finite base above 0")
            .into());
    }
    let ty = array.ty.clone();
    let data = array.data.iter().map(|e| ty.dtype.round(base.powf(*e))).collect();
    let leaf = crate::value::Leaf::new(ty.clone(), Source::Const(Rc::new(Array::new(ty, data))));
    Ok(Value::Tensor(leaf))
}

/// `draw("noise", normal_like(x))`: random numbers, an input of the program that may be given instead.
fn draw<'a>(ev: &mut Evaluator<'a>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    args.expect(2, "draw(\"noise\", normal_like(x))")?;
    let name = args.text(0)?;
    let (Value::Draw(spec), _) = args.get(1)? else {
        return Err(Diagnostic::error("`draw` takes a distribution")
            .at(args.span(1), "")
            .help("write `uniform([B], 0.0..1.0)` or `normal_like(x)`")
            .into());
    };
    if ev.trace.frames.len() != 1 || args.site.caller != PlaceId::NONE {
        return Err(Diagnostic::error("a draw outside of the task's own function")
            .at(args.site.span, "")
            .help("draw in the task, and hand the tensor on")
            .into());
    }
    let (distribution, dims) = &*spec;
    let ty = ev.grouped(TensorType::new(DType::F32, dims.iter().cloned()));
    ev.trace.check_size(&ty, args.site.span)?;
    let feed = FeedDeclaration { name: (&*name).into(), ty, draw: Some(*distribution), state: false, count: None };
    Ok(Value::Tensor(ev.declare_feed(feed, args.site.span)?))
}
