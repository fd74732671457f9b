//! The vocabulary of .mm files: what its names mean, and which file knows each function and method.
//!
//! `frontends/mm` declares the same vocabulary for rustc.

mod attention;
mod axes;
mod directives;
mod elementwise;
mod experts;
mod forms;
mod formulas;
mod indices;
mod modules;
mod numbers;
mod positions;
mod reductions;
mod schedules;
mod sources;
mod stacks;

pub use numbers::truncated;
pub use schedules::words as schedules;

use diag::{Diagnostic, Span};
use types::DType;

use crate::args::Args;
use crate::evaluator::Evaluator;
use crate::stop::Eval;
use crate::suggest::{listed, nearest};
use crate::value::{Function, Leaf, Operand, StructKind, Value};

/// The type of a residual stream: f32, or the working type where all is computed in it.
pub const STREAM: &str = "stream";

/// Names that are values.
const CONSTANTS: &[(&str, Value<'static>)] = &[
    ("f32", Value::DType(DType::F32)),
    ("f64", Value::DType(DType::F64)),
    ("i64", Value::DType(DType::I64)),
    ("i32", Value::DType(DType::I32)),
    ("work", Value::DType(DType::Work)),
    ("None", Value::Option(None)),
];

const FUNCTIONS: &[&str] = &[
    "Some",
    "one_of",
    "require", // values
    "iota",
    "powers",
    "constant",
    "zeros",
    "draw",
    "uniform",
    "normal",
    "normal_like", // sources
    "select",
    "concat",
    "swiglu",
    "geglu",
    "cross_entropy",
    "attend",
    "attend_causal", // tensors
    "linear",
    "layer_norm",
    "rms_norm",
    "embedding",
    "stack",
    "stack_at", // modules
];

const ASSOCIATED: &[(&str, &str)] = &[("Param", "normal"), ("Param", "uniform"), ("Param", "zeros"), ("Param", "ones")];

pub fn name<'a>(name: &str) -> Option<Value<'a>> {
    if let Some((_, value)) = CONSTANTS.iter().find(|(n, _)| *n == name) {
        return Some(value.clone());
    }
    if let Some(schedule) = schedules::schedule(name) {
        return Some(Value::Schedule(schedule));
    }
    FUNCTIONS.iter().find(|n| **n == name).map(|n| Value::Function(Function::Vocabulary(n)))
}

pub fn names() -> impl Iterator<Item = &'static str> {
    own_names().chain(schedules())
}

fn own_names() -> impl Iterator<Item = &'static str> {
    CONSTANTS.iter().map(|(n, _)| *n).chain([STREAM]).chain(FUNCTIONS.iter().copied())
}

/// Every word but those of [`schedules`]: names, and methods of any value.
pub fn words() -> impl Iterator<Item = &'static str> {
    let methods = [
        elementwise::METHODS,
        formulas::METHODS,
        axes::METHODS,
        reductions::METHODS,
        indices::METHODS,
        attention::METHODS,
        experts::METHODS,
        stacks::ON_TENSORS,
        stacks::ON_STACKS,
        modules::METHODS,
        modules::ON_PARAMS,
        directives::METHODS,
        directives::ON_RUNS,
    ];
    own_names().chain(ASSOCIATED.iter().map(|(_, n)| *n)).chain(methods.into_iter().flatten().copied())
}

/// `Param::normal` and its kin.
pub fn associated<'a>(owner: &str, name: &str) -> Option<Value<'a>> {
    let known = ASSOCIATED.iter().any(|(o, n)| *o == owner && *n == name);
    known.then(|| {
        Value::Function(Function::Vocabulary(match name {
            "normal" => "Param::normal",
            "uniform" => "Param::uniform",
            "zeros" => "Param::zeros",
            _ => "Param::ones",
        }))
    })
}

pub fn call<'a>(ev: &mut Evaluator<'a>, name: &'static str, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    match name {
        "Some" | "one_of" | "require" => numbers::call(name, args),
        "iota" | "powers" | "constant" | "zeros" | "draw" | "uniform" | "normal" | "normal_like" => {
            sources::call(ev, name, args)
        }
        "geglu" => formulas::geglu(ev, args),
        "select" | "swiglu" => elementwise::call(ev, name, args),
        "concat" => axes::concat(ev, args),
        "cross_entropy" => reductions::cross_entropy(ev, args),
        "attend" => attention::attend(ev, args, false),
        "attend_causal" => attention::attend(ev, args, true),
        _ => modules::call(ev, name, args),
    }
}

/// Methods that values of every kind have.
pub fn any_value_has(name: &str) -> bool {
    matches!(name, "clone" | "named")
}

pub fn method<'a>(ev: &mut Evaluator<'a>, receiver: Value<'a>, at: Span, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    if args.name == "clone" {
        return Ok(receiver);
    }
    let known: &[&[&str]] = match &receiver {
        Value::Tensor(_) => &[
            elementwise::METHODS,
            formulas::METHODS,
            axes::METHODS,
            reductions::METHODS,
            indices::METHODS,
            attention::METHODS,
            experts::METHODS,
            stacks::ON_TENSORS,
        ],
        Value::Param(_) => &[
            modules::ON_PARAMS,
            elementwise::METHODS,
            formulas::METHODS,
            axes::METHODS,
            reductions::METHODS,
            indices::METHODS,
            attention::METHODS,
            experts::METHODS,
        ],
        Value::Stack(_) => &[stacks::ON_STACKS],
        Value::Struct(s) if matches!(s.kind, StructKind::Vocabulary(_)) => &[modules::METHODS],
        Value::Struct(_) => &[&["named"]],
        Value::Int(_) | Value::Float(_) | Value::Dim(_) => &[numbers::ON_NUMBERS],
        Value::Array(_) | Value::Tuple(_) => &[numbers::ON_ARRAYS],
        Value::Option(_) => &[numbers::ON_OPTIONS],
        Value::Plan => &[directives::METHODS],
        Value::Run => &[directives::ON_RUNS],
        _ => &[],
    };
    let name = args.name.as_str();
    if !known.iter().any(|group| group.contains(&name)) {
        let all = || known.iter().flat_map(|group| group.iter().copied());
        let mut error = Diagnostic::error(format!("{} has no method `{name}`", receiver.describe()))
            .at(args.site.span, "not found")
            .at(at, "on this");
        if let Some(near) = nearest(name, all()) {
            error = error.help(format!("did you mean `{near}`?"));
        } else if all().count() > 0 {
            error = error.help(format!("there are {}", listed(all())));
        }
        return Err(error.into());
    }
    match receiver {
        Value::Param(param) if modules::ON_PARAMS.contains(&name) => modules::param_method(param, args),
        Value::Tensor(_) | Value::Param(_) => {
            let leaf = ev.leaf(receiver, at, args.site)?;
            let x = Operand { leaf: &leaf, span: at };
            if elementwise::METHODS.contains(&name) {
                elementwise::method(ev, x, args)
            } else if formulas::METHODS.contains(&name) {
                formulas::method(ev, x, args)
            } else if indices::METHODS.contains(&name) {
                indices::method(ev, x, args)
            } else if axes::METHODS.contains(&name) {
                axes::method(ev, x, args)
            } else if attention::METHODS.contains(&name) {
                attention::method(ev, x, args)
            } else if experts::METHODS.contains(&name) {
                experts::method(ev, x, args)
            } else if stacks::ON_TENSORS.contains(&name) {
                stacks::chunks(ev, x, args)
            } else {
                reductions::method(ev, x, args)
            }
        }
        Value::Stack(stack) => stacks::method(ev, &stack, at, args),
        Value::Struct(s) => modules::method(ev, &s, at, args),
        Value::Int(_) | Value::Float(_) | Value::Dim(_) => numbers::on_number(&receiver, args),
        Value::Array(items) | Value::Tuple(items) => numbers::on_array(ev, &items, at, args),
        Value::Option(inner) => numbers::on_option(ev, inner, at, args),
        Value::Run => directives::on_run(ev, args),
        _ => directives::method(ev, args),
    }
}

/// The `i`-th argument as a tensor to compute with.
fn tensor<'a>(ev: &mut Evaluator<'a>, args: &Args<'a>, i: usize) -> Eval<'a, Leaf> {
    let (value, span) = args.get(i)?;
    ev.leaf(value, span, args.site)
}
