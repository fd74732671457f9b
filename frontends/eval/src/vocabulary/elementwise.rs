//! Functions of each element: activations, comparisons, choices and casts.

use diag::Diagnostic;
use ir::ops::Comparison;
use ir::{Op, ops};
use types::DType;

use super::tensor;
use crate::args::Args;
use crate::evaluator::Evaluator;
use crate::leaves::map_leaves;
use crate::stop::{Eval, Stop};
use crate::value::{Operand, Value, real};

pub const METHODS: &[&str] = &[
    "abs",
    "exp",
    "expm1",
    "log",
    "log1p",
    "floor",
    "round",
    "sqrt",
    "rsqrt",
    "tanh",
    "sin",
    "cos",
    "sigmoid",
    "erf",
    "gelu_tanh",
    "silu",
    "square",
    "max",
    "min",
    "lt",
    "le",
    "gt",
    "ge",
    "eq",
    "ne",
    "cast",
    "in_f32",
];

pub fn method<'a>(ev: &mut Evaluator<'a>, x: Operand<'_>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    let op: Op = match args.name.as_str() {
        "abs" => ops::Abs {}.into(),
        "exp" => ops::Exp {}.into(),
        "expm1" => ops::Expm1 {}.into(),
        "log" => ops::Log {}.into(),
        "log1p" => ops::Log1p {}.into(),
        "floor" => ops::Floor {}.into(),
        "round" => ops::Round {}.into(),
        "sqrt" => ops::Sqrt {}.into(),
        "rsqrt" => ops::Rsqrt {}.into(),
        "tanh" => ops::Tanh {}.into(),
        "sin" => ops::Sin {}.into(),
        "cos" => ops::Cos {}.into(),
        "sigmoid" => ops::Sigmoid {}.into(),
        "erf" => ops::Erf {}.into(),
        "gelu_tanh" => ops::GeluTanh {}.into(),
        "silu" => ops::Silu {}.into(),
        "square" => {
            args.expect(0, "x.square()")?;
            return Ok(Value::Tensor(ev.trace.op(ops::Mul {}, &[x, x], args.site)?));
        }
        "cast" => {
            args.expect(1, "x.cast(f32)")?;
            return Ok(Value::Tensor(ev.cast_leaf(x.leaf, args.dtype(0)?, x.span, args.site)?));
        }
        "in_f32" => return in_f32(ev, x, args),
        _ => return pair(ev, x, args),
    };
    args.expect(0, &format!("x.{}()", args.name))?;
    if !x.leaf.tensor().dtype.is_float() {
        return Err(Diagnostic::error(format!("`{}` of a tensor of {}", args.name, x.leaf.tensor().dtype))
            .at(args.site.span, "")
            .at(x.span, format!("this is `{}`", x.leaf.ty))
            .help("cast it to a float first: `.cast(f32)`")
            .into());
    }
    Ok(Value::Tensor(ev.trace.op(op, &[x], args.site)?))
}

/// Methods of two tensors, or of a tensor and a number.
fn pair<'a>(ev: &mut Evaluator<'a>, x: Operand<'_>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    args.expect(1, &format!("x.{}(y)", args.name))?;
    let compare = |kind| -> Op { ops::Compare { kind }.into() };
    let op = match args.name.as_str() {
        "max" => ops::Max {}.into(),
        "min" => ops::Min {}.into(),
        "lt" => compare(Comparison::Less),
        "le" => compare(Comparison::LessEqual),
        "gt" => compare(Comparison::Greater),
        "ge" => compare(Comparison::GreaterEqual),
        "eq" => compare(Comparison::Equal),
        _ => compare(Comparison::NotEqual),
    };
    let other = args.get(0)?;
    let at = other.1;
    let (x_leaf, y) = ev.promote((Value::Tensor(x.leaf.clone()), x.span), other, args.site)?;
    let operands = [Operand { leaf: &x_leaf, span: x.span }, Operand { leaf: &y, span: at }];
    Ok(Value::Tensor(ev.trace.op(op, &operands, args.site)?))
}

pub fn call<'a>(ev: &mut Evaluator<'a>, name: &str, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    if name == "swiglu" {
        args.expect(2, "swiglu(gate, up)")?;
        let (gate, up) = (tensor(ev, args, 0)?, tensor(ev, args, 1)?);
        let operands = [Operand { leaf: &gate, span: args.span(0) }, Operand { leaf: &up, span: args.span(1) }];
        return Ok(Value::Tensor(ev.trace.op(ops::Swiglu {}, &operands, args.site)?));
    }
    args.expect(3, "select(condition, a, b)")?;
    let condition = tensor(ev, args, 0)?;
    let (a, b) = (args.get(1)?, args.get(2)?);
    let (at_a, at_b) = (a.1, b.1);
    if real(&a.0).is_some() && real(&b.0).is_some() {
        return Err(Diagnostic::error("`select` chooses between tensors, these are two numbers")
            .at(args.site.span, "")
            .help("write one of them as `constant(0.0, f32)`")
            .into());
    }
    let (a, b) = ev.promote(a, b, args.site)?;
    let operands = [
        Operand { leaf: &condition, span: args.span(0) },
        Operand { leaf: &a, span: at_a },
        Operand { leaf: &b, span: at_b },
    ];
    Ok(Value::Tensor(ev.trace.op(ops::Select {}, &operands, args.site)?))
}

/// Runs the closure on the tensor in f32, and casts what it returns back to the tensor's type.
fn in_f32<'a>(ev: &mut Evaluator<'a>, x: Operand<'_>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    args.expect(1, "x.in_f32(|x| ..)")?;
    let (body, _) = args.get(0)?;
    let back = x.leaf.tensor().dtype;
    let wide = ev.cast_leaf(x.leaf, DType::F32, x.span, args.site)?;
    let result = ev.invoke(body, vec![(Value::Tensor(wide), x.span)], args.site)?;
    map_leaves::<Stop<'a>>(&result, &mut |leaf| {
        if leaf.tensor().dtype == DType::F32 {
            ev.cast_leaf(leaf, back, args.site.span, args.site)
        } else {
            Ok(leaf.clone())
        }
    })
}
