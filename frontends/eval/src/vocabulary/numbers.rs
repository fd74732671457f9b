//! Methods of compile-time numbers, arrays and options.

use std::rc::Rc;

use diag::{Diagnostic, Span};

use crate::args::Args;
use crate::evaluator::Evaluator;
use crate::stop::Eval;
use crate::value::{Bound, Range, Value, real, whole};

pub const ON_NUMBERS: &[&str] = &[
    "sqrt", "rsqrt", "ln", "exp", "powf", "f64", "i64", "div_ceil", "at_least", "at_most", "range", "max", "min",
    "abs", "within",
];
pub const ON_ARRAYS: &[&str] = &["map", "len", "contains"];
pub const ON_OPTIONS: &[&str] = &["is_some", "is_none", "map", "unwrap_or", "as_ref"];

pub fn call<'a>(name: &str, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    match name {
        "Some" => {
            args.expect(1, "Some(x)")?;
            Ok(Value::some(args.get(0)?.0))
        }
        "one_of" => {
            args.expect(1, "one_of([\"a\", \"b\"])")?;
            match args.array(0)?.into_iter().next() {
                Some((first @ Value::Str(_), _)) => Ok(first),
                _ => Err(Diagnostic::error("`one_of` lists texts, the default first").at(args.span(0), "").into()),
            }
        }
        _ => {
            args.expect(2, "require(condition, \"message\")")?;
            let (Value::Bool(holds), _) = args.get(0)? else {
                return Err(Diagnostic::error("`require` takes a condition").at(args.span(0), "").into());
            };
            if holds { Ok(Value::Unit) } else { Err(Diagnostic::error(&*args.text(1)?).at(args.site.span, "").into()) }
        }
    }
}

pub fn on_number<'a>(receiver: &Value<'a>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    let span = args.site.span;
    let x = real(receiver).unwrap_or(0.0);
    let one = |form: &str| -> Eval<'a, f64> {
        args.expect(1, form)?;
        args.number(0)
    };
    let float = |v: f64| -> Eval<'a, Value<'a>> {
        if v.is_finite() {
            Ok(Value::Float(v))
        } else {
            Err(Diagnostic::error(format!("this is {v}")).at(span, "").into())
        }
    };
    let both = whole(receiver).zip(args.items.first().and_then(|(v, _)| whole(v)));
    match args.name.as_str() {
        "sqrt" => float(x.sqrt()),
        "rsqrt" => float(1.0 / x.sqrt()),
        "ln" => float(x.ln()),
        "exp" => float(x.exp()),
        "powf" => float(x.powf(one("x.powf(y)")?)),
        "f64" => Ok(Value::Float(x)),
        "i64" => Ok(Value::Int(truncated(x, span)?)),
        "abs" => match whole(receiver) {
            Some(v) => Ok(Value::Int(v.saturating_abs())),
            None => Ok(Value::Float(x.abs())),
        },
        "within" => super::forms::within(receiver, args),
        "range" => {
            let end = whole(receiver).unwrap_or(0);
            let range = Range { start: Some(Bound::Int(0)), end: Some(Bound::Int(end)), closed: false };
            Ok(Value::Range(Rc::new(range)))
        }
        "div_ceil" => match both {
            Some((a, b)) if a >= 0 && b > 0 => Ok(Value::Int(a.div_euclid(b) + i64::from(a % b != 0))),
            _ => Err(Diagnostic::error("`div_ceil` takes a positive whole number").at(span, "").into()),
        },
        "at_least" | "max" => match both {
            Some((a, b)) => Ok(Value::Int(a.max(b))),
            None => float(x.max(one("x.at_least(1)")?)),
        },
        _ => match both {
            Some((a, b)) => Ok(Value::Int(a.min(b))),
            None => float(x.min(one("x.at_most(1)")?)),
        },
    }
}

/// The whole part of a number that an i64 can hold.
pub fn truncated(x: f64, span: Span) -> Result<i64, Diagnostic> {
    // The largest f64 below 2^63; the comparison is false for what is no number.
    if x.abs() < i64::MAX as f64 {
        return Ok(x as i64);
    }
    Err(Diagnostic::error(format!("{x} has no whole part within 64 bits")).at(span, ""))
}

pub fn on_array<'a>(ev: &mut Evaluator<'a>, items: &Rc<[Value<'a>]>, at: Span, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    if args.name == "len" {
        return Ok(Value::Int(items.len() as i64));
    }
    if args.name == "contains" {
        args.expect(1, "array.contains(&x)")?;
        let (item, at) = args.get(0)?;
        let Some(wanted) = whole(&item) else {
            return Err(Diagnostic::error(format!("a list of whole numbers has no {}", item.describe()))
                .at(at, "")
                .into());
        };
        return Ok(Value::Bool(items.iter().any(|item| whole(item) == Some(wanted))));
    }
    args.expect(1, "array.map(|x| ..)")?;
    let (f, _) = args.get(0)?;
    let mapped: Eval<'a, Vec<_>> =
        items.iter().map(|item| ev.invoke(f.clone(), vec![(item.clone(), at)], args.site)).collect();
    Ok(Value::Array(mapped?.into()))
}

pub fn on_option<'a>(
    ev: &mut Evaluator<'a>,
    inner: Option<Rc<Value<'a>>>,
    at: Span,
    args: &Args<'a>,
) -> Eval<'a, Value<'a>> {
    match (args.name.as_str(), inner) {
        ("is_some", inner) => Ok(Value::Bool(inner.is_some())),
        ("is_none", inner) => Ok(Value::Bool(inner.is_none())),
        ("as_ref", inner) => Ok(Value::Option(inner)),
        ("unwrap_or", inner) => {
            args.expect(1, "option.unwrap_or(x)")?;
            Ok(inner.map_or(args.get(0)?.0, |v| (*v).clone()))
        }
        (_, None) => Ok(Value::Option(None)),
        (_, Some(value)) => {
            args.expect(1, "option.map(|x| ..)")?;
            let mapped = ev.invoke(args.get(0)?.0, vec![((*value).clone(), at)], args.site)?;
            Ok(Value::some(mapped))
        }
    }
}
