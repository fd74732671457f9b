//! Modules of the vocabulary: linear layers, norms, embeddings, parameters and stacks of modules.

use std::rc::Rc;

use diag::{Diagnostic, Span};
use ir::{Type, ops};
use types::{DType, Dim, Distribution, Init, MAX_STACK, Name, TensorType};

use super::axes::no_dim;
use super::forms;
use super::tensor;
use crate::args::Args;
use crate::evaluator::Evaluator;
use crate::leaves::map_leaves;
use crate::operator::number_like;
use crate::stop::{Eval, Stop};
use crate::value::{Leaf, Operand, Param, ParamSpec, Source, Stack, Struct, Value};

pub const METHODS: &[&str] = &[
    "forward",
    "keep",
    "no_bias",
    "init",
    "frozen",
    "tied_to",
    "rounded_first",
    "plus_one",
    "named",
    "saved_as",
    "read_as",
];
pub const ON_PARAMS: &[&str] = &["keep", "frozen", "tied_to", "init", "saved_as", "read_as"];

pub fn call<'a>(ev: &mut Evaluator<'a>, name: &str, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    match name {
        "linear" => {
            args.expect(2, "linear(FROM, TO)")?;
            let (from, to) = (args.dim(0)?, args.dim(1)?);
            let reach = 1.0 / (from.size.max(1) as f64).sqrt();
            let init = Init::Random(Distribution::Uniform { lo: -reach, hi: reach });
            let dims = if from.name == to.name {
                let side = |end: &str| Dim { name: Name::from(format!("{}.{end}", from.name)), size: from.size };
                vec![side("out"), side("in")]
            } else {
                vec![to.clone(), from]
            };
            let weight = parameter(ev, dims, init, args)?;
            let bias = Value::some(parameter(ev, vec![to], init, args)?);
            Ok(Value::vocabulary("Linear", vec![("weight", weight), ("bias", bias)]))
        }
        "layer_norm" => {
            args.expect(2, "layer_norm(DIM, eps)")?;
            let (dim, eps) = (args.dim(0)?, args.number(1)?);
            let weight = parameter(ev, vec![dim.clone()], Init::Ones, args)?;
            let bias = parameter(ev, vec![dim], Init::Zeros, args)?;
            let fields = vec![("weight", weight), ("bias", bias), ("eps", Value::Float(eps))];
            Ok(Value::vocabulary("LayerNorm", fields))
        }
        "rms_norm" => {
            args.expect(2, "rms_norm(DIM, eps)")?;
            let (dim, eps) = (args.dim(0)?, args.number(1)?);
            let weight = parameter(ev, vec![dim], Init::Ones, args)?;
            let fields = vec![
                ("weight", weight),
                ("eps", Value::Float(eps)),
                ("rounded_first", Value::Bool(false)),
                ("plus_one", Value::Bool(false)),
            ];
            Ok(Value::vocabulary("RmsNorm", fields))
        }
        "embedding" => {
            args.expect(2, "embedding(VOCAB, DIM)")?;
            let normal = Init::Random(Distribution::Normal { mean: 0.0, std: 1.0 });
            let weight = parameter(ev, vec![args.dim(0)?, args.dim(1)?], normal, args)?;
            Ok(Value::vocabulary("Embedding", vec![("weight", weight)]))
        }
        "stack" => stack(ev, args),
        "stack_at" => super::positions::stack_at(ev, args),
        _ => {
            let init = match name {
                "Param::normal" => {
                    args.expect(2, "Param::normal([A, B], std)")?;
                    Init::Random(Distribution::Normal { mean: 0.0, std: args.number(1)? })
                }
                "Param::uniform" => {
                    args.expect(2, "Param::uniform([A, B], -0.1..0.1)")?;
                    let (lo, hi) = args.interval(1)?;
                    Init::Random(Distribution::Uniform { lo, hi })
                }
                "Param::zeros" => {
                    args.expect(1, "Param::zeros([A, B])")?;
                    Init::Zeros
                }
                _ => {
                    args.expect(1, "Param::ones([A, B])")?;
                    Init::Ones
                }
            };
            parameter(ev, args.dims(0)?, init, args)
        }
    }
}

fn parameter<'a>(ev: &Evaluator<'a>, dims: Vec<Dim>, init: Init, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    let ty = TensorType::new(DType::F32, dims);
    ev.trace.check_size(&ty, args.site.span)?;
    if let Some(i) = (1..ty.rank()).find(|&i| ty.dims[..i].iter().any(|d| d.name == ty.dims[i].name)) {
        return Err(Diagnostic::error(format!("dim {} stands twice", ty.dims[i].name))
            .at(args.site.span, "")
            .help("dims of one tensor have distinct names")
            .into());
    }
    let spec = ParamSpec { init, trainable: true, tied: vec![], forms: vec![], span: args.site.span };
    Ok(Value::Param(Param { leaf: Leaf::new(ty, Source::Unplaced), keep: None, spec: Rc::new(spec) }))
}

/// `stack(LAYERS, Block::new)`.
fn stack<'a>(ev: &mut Evaluator<'a>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    args.expect(2, "stack(LAYERS, Block::new)")?;
    let (count, (make, _)) = (args.dim(0)?.size, args.get(1)?);
    if count == 0 {
        return Err(Diagnostic::error("a stack of no modules").at(args.span(0), "at least one").into());
    }
    if count > MAX_STACK {
        let message = format!("a stack of {count} modules, at most {MAX_STACK}");
        return Err(Diagnostic::error(message)
            .at(args.span(0), "")
            .note("the modules of a stack are written out one after another in the plan")
            .into());
    }
    let item = ev.invoke(make, vec![], args.site)?;
    ev.stacks.push(count);
    Ok(Value::Stack(Rc::new(Stack::equal(count, family(&item, count, args)?, false, None))))
}

/// A module whose leaves are those of this many equal ones.
pub fn family<'a>(module: &Value<'a>, count: usize, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    map_leaves::<Stop<'a>>(module, &mut |leaf| match &leaf.ty {
        Type::Tensor(of) => Ok(Leaf { ty: Type::Stack { count, of: of.clone() }, source: leaf.source.clone() }),
        _ => Err(Diagnostic::error("a stack within a stack")
            .at(args.site.span, "its modules hold a stack themselves")
            .help("make the inner one an array")
            .into()),
    })
}

pub fn param_method<'a>(mut param: Param, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    let mut spec = (*param.spec).clone();
    match args.name.as_str() {
        "keep" => {
            args.expect(1, "keep(f32)")?;
            param.keep = Some(args.dtype(0)?);
        }
        "frozen" => {
            args.expect(0, "frozen()")?;
            spec.trainable = false;
        }
        "tied_to" => {
            args.expect(1, "tied_to(\"lm_head.weight\")")?;
            spec.tied.push(Name::new(&args.text(0)?));
        }
        "saved_as" | "read_as" => {
            let form = forms::form(&param, args)?;
            if form.saved && spec.forms.iter().any(|other| other.saved) {
                return Err(Diagnostic::error("a parameter is saved in one form")
                    .at(args.site.span, "the second")
                    .into());
            }
            spec.forms.push(form);
        }
        _ => {
            args.expect(1, "init(normal(0.02))")?;
            spec.init = match args.get(0)? {
                (Value::Init(init), _) => init,
                (other, span) => {
                    return Err(Diagnostic::error(format!("expected an initialiser, found {}", other.describe()))
                        .at(span, "")
                        .help("write `normal(0.02)`")
                        .into());
                }
            };
        }
    }
    param.spec = Rc::new(spec);
    Ok(Value::Param(param))
}

pub fn method<'a>(ev: &mut Evaluator<'a>, s: &Rc<Struct<'a>>, at: Span, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    let with = |name: &str, value: Value<'a>| {
        let fields = s.fields.iter().map(|(n, v)| (n.clone(), if *n == *name { value.clone() } else { v.clone() }));
        Value::Struct(Rc::new(s.with_fields(fields.collect())))
    };
    match (args.name.as_str(), s.kind.name()) {
        ("named", _) => {
            args.expect(1, "module.named(\"name\")")?;
            let renamed = Some(Name::new(&args.text(0)?));
            Ok(Value::Struct(Rc::new(Struct { renamed, ..s.with_fields(s.fields.clone()) })))
        }
        ("no_bias", "Linear") => {
            args.expect(0, "linear(A, B).no_bias()")?;
            Ok(with("bias", Value::Option(None)))
        }
        ("rounded_first", "RmsNorm") => {
            args.expect(0, "rms_norm(DIM, eps).rounded_first()")?;
            Ok(with("rounded_first", Value::Bool(true)))
        }
        ("plus_one", "RmsNorm") => {
            args.expect(0, "rms_norm(DIM, eps).plus_one()")?;
            let Some(Value::Param(mut weight)) = s.field("weight").cloned() else {
                return Err(Diagnostic::error("this module has no weight").at(at, "").into());
            };
            // A weight of 0 leaves what is normalised as it is.
            weight.spec = Rc::new(ParamSpec { init: Init::Zeros, ..(*weight.spec).clone() });
            let new = |name: &str, value: &Value<'a>| match name {
                "weight" => Value::Param(weight.clone()),
                "plus_one" => Value::Bool(true),
                _ => value.clone(),
            };
            let fields = s.fields.iter().map(|(name, value)| (name.clone(), new(name, value))).collect();
            Ok(Value::Struct(Rc::new(s.with_fields(fields))))
        }
        ("init" | "tied_to" | "saved_as" | "read_as", _) => match s.field("weight") {
            Some(Value::Param(weight)) => Ok(with("weight", param_method(weight.clone(), args)?)),
            _ => Err(Diagnostic::error("this module has no weight").at(at, "").into()),
        },
        ("keep" | "frozen", _) => {
            let mut fields = vec![];
            for (name, value) in &s.fields {
                let value = match value {
                    Value::Param(p) => param_method(p.clone(), args)?,
                    Value::Option(Some(inner)) => match &**inner {
                        Value::Param(p) => Value::some(param_method(p.clone(), args)?),
                        _ => value.clone(),
                    },
                    _ => value.clone(),
                };
                fields.push((name.clone(), value));
            }
            Ok(Value::Struct(Rc::new(s.with_fields(fields))))
        }
        ("forward", kind) => {
            args.expect(1, "module.forward(x)")?;
            let x = tensor(ev, args, 0)?;
            let x = Operand { leaf: &x, span: args.span(0) };
            Ok(Value::Tensor(match kind {
                "Linear" => linear(ev, s, x, args)?,
                "LayerNorm" => layer_norm(ev, s, x, args)?,
                "RmsNorm" => rms_norm(ev, s, x, args)?,
                _ => embedding(ev, s, x, args)?,
            }))
        }
        (name, kind) => {
            Err(Diagnostic::error(format!("a `{kind}` has no method `{name}`")).at(args.site.span, "").into())
        }
    }
}

/// The module's parameter as a tensor, and its own type.
fn own<'a>(ev: &mut Evaluator<'a>, s: &Struct<'a>, name: &str, args: &Args<'a>) -> Eval<'a, Leaf> {
    match s.field(name) {
        Some(p @ Value::Param(_)) => ev.leaf(p.clone(), args.site.span, args.site),
        _ => Err(Diagnostic::error(format!("this module has no `{name}`")).at(args.site.span, "").into()),
    }
}

/// The parameter in f32, whatever type it is otherwise used in.
fn master<'a>(ev: &mut Evaluator<'a>, s: &Struct<'a>, name: &str, args: &Args<'a>) -> Eval<'a, Leaf> {
    match s.field(name) {
        Some(Value::Param(p)) => ev.cast_leaf(&p.leaf, DType::F32, args.site.span, args.site),
        _ => Err(Diagnostic::error(format!("this module has no `{name}`")).at(args.site.span, "").into()),
    }
}

fn linear<'a>(ev: &mut Evaluator<'a>, s: &Struct<'a>, x: Operand<'_>, args: &Args<'a>) -> Eval<'a, Leaf> {
    let weight = own(ev, s, "weight", args)?;
    let ty = x.leaf.tensor();
    let [out, from] = [0, 1].map(|i| weight.tensor().dims[i].clone());
    let plain = |name: &Name, end: &str| Name::new(name.strip_suffix(end).unwrap_or(name));
    let (out_name, from_name) = (plain(&out.name, ".out"), plain(&from.name, ".in"));
    let Some(at) = ty.position(&from_name) else { return Err(no_dim(&from_name, args.site.span, x)) };
    if ty.dims[at].size != from.size {
        return Err(Diagnostic::error(format!(
            "this layer reads {from_name}:{}, here it is {}",
            from.size, ty.dims[at]
        ))
        .at(args.site.span, "sizes differ")
        .at(x.span, format!("this is `{ty}`"))
        .into());
    }
    if ty.rank() > 20 {
        return Err(Diagnostic::error("a linear layer over more than 20 dims").at(x.span, "").into());
    }
    if ty.dtype != weight.tensor().dtype {
        return Err(Diagnostic::error(format!("a layer in {} reads a tensor of {}", weight.tensor().dtype, ty.dtype))
            .at(x.span, format!("this is `{ty}`"))
            .help(format!("cast it: `.cast({})`; or keep the layer in f32: `.keep(f32)`", weight.tensor().dtype))
            .into());
    }
    // The result's dim stands where the operand's was.
    let letters: String = (0..ty.rank()).map(|i| (b'a' + i as u8) as char).collect();
    let (o, i) = ('o', (b'a' + at as u8) as char);
    let letters = letters.replace('o', "z");
    let i = if i == 'o' { 'z' } else { i };
    let kept = letters.replace(i, "o");
    let mut dims: Vec<Name> = ty.dims.iter().map(|d| d.name.clone()).collect();
    dims[at] = out_name.clone();
    let op = ops::Matmul { spec: format!("{letters},{o}{i}->{kept}"), dims, dtype: None };
    let product = ev.trace.op(op, &[x, Operand { leaf: &weight, span: args.site.span }], args.site)?;
    match s.field("bias") {
        Some(Value::Option(Some(bias))) => {
            let bias = ev.leaf((**bias).clone(), args.site.span, args.site)?;
            let [product, bias] = [&product, &bias].map(|leaf| Operand { leaf, span: x.span });
            Ok(ev.trace.op(ops::Add {}, &[product, bias], args.site)?)
        }
        _ => Ok(product),
    }
}

/// In f32 throughout, as diffusers' `FP32LayerNorm`; the result in the operand's type.
fn layer_norm<'a>(ev: &mut Evaluator<'a>, s: &Struct<'a>, x: Operand<'_>, args: &Args<'a>) -> Eval<'a, Leaf> {
    let (weight, bias) = (master(ev, s, "weight", args)?, master(ev, s, "bias", args)?);
    let (dim, eps) = normalised(s, &weight, x, args)?;
    let back = x.leaf.tensor().dtype;
    let wide = ev.cast_leaf(x.leaf, DType::F32, x.span, args.site)?;
    let normal = ev.trace.op(ops::LayerNorm { dim, eps }, &[Operand { leaf: &wide, span: x.span }], args.site)?;
    let [normal, weight, bias] = [&normal, &weight, &bias].map(|leaf| Operand { leaf, span: x.span });
    let scaled = ev.trace.op(ops::Mul {}, &[normal, weight], args.site)?;
    let shifted = ev.trace.op(ops::Add {}, &[Operand { leaf: &scaled, span: x.span }, bias], args.site)?;
    ev.cast_leaf(&shifted, back, x.span, args.site)
}

/// Normal in f32; the product with the weight in f32 too (PyTorch), or after rounding (transformers).
fn rms_norm<'a>(ev: &mut Evaluator<'a>, s: &Struct<'a>, x: Operand<'_>, args: &Args<'a>) -> Eval<'a, Leaf> {
    let rounded_first = matches!(s.field("rounded_first"), Some(Value::Bool(true)));
    let mut weight = if rounded_first { own(ev, s, "weight", args)? } else { master(ev, s, "weight", args)? };
    if matches!(s.field("plus_one"), Some(Value::Bool(true))) {
        let one = number_like(&Value::Float(1.0), weight.tensor().dtype, args.site.span)?;
        let operands = [&weight, &one].map(|leaf| Operand { leaf, span: x.span });
        weight = ev.trace.op(ops::Add {}, &operands, args.site)?;
    }
    let (dim, eps) = normalised(s, &weight, x, args)?;
    let back = x.leaf.tensor().dtype;
    let wide = ev.cast_leaf(x.leaf, DType::F32, x.span, args.site)?;
    let mut normal = ev.trace.op(ops::RmsNorm { dim, eps }, &[Operand { leaf: &wide, span: x.span }], args.site)?;
    if rounded_first {
        normal = ev.cast_leaf(&normal, back, x.span, args.site)?;
    }
    let (normal, weight) = ev.promote((Value::Tensor(normal), x.span), (Value::Tensor(weight), x.span), args.site)?;
    let [normal, weight] = [&normal, &weight].map(|leaf| Operand { leaf, span: x.span });
    let scaled = ev.trace.op(ops::Mul {}, &[normal, weight], args.site)?;
    ev.cast_leaf(&scaled, back, x.span, args.site)
}

fn normalised<'a>(s: &Struct<'a>, weight: &Leaf, x: Operand<'_>, args: &Args<'a>) -> Eval<'a, (Name, f64)> {
    let dim = &weight.tensor().dims[0];
    let Some(size) = x.leaf.tensor().size_of(&dim.name) else { return Err(no_dim(&dim.name, args.site.span, x)) };
    if size != dim.size {
        return Err(Diagnostic::error(format!("this norm is over {dim}, here {} is {size}", dim.name))
            .at(args.site.span, "sizes differ")
            .at(x.span, format!("this is `{}`", x.leaf.ty))
            .into());
    }
    match s.field("eps") {
        Some(Value::Float(eps)) => Ok((dim.name.clone(), *eps)),
        _ => Ok((dim.name.clone(), 0.0)),
    }
}

/// Rows of the master table, then in the working type.
fn embedding<'a>(ev: &mut Evaluator<'a>, s: &Struct<'a>, ids: Operand<'_>, args: &Args<'a>) -> Eval<'a, Leaf> {
    let Some(Value::Param(weight)) = s.field("weight") else {
        return Err(Diagnostic::error("this module has no `weight`").at(args.site.span, "").into());
    };
    let dim = weight.leaf.tensor().dims[0].name.clone();
    let table = Operand { leaf: &weight.leaf, span: args.site.span };
    let rows = ev.trace.op(ops::Gather { dim }, &[table, ids], args.site)?;
    ev.cast_leaf(&rows, weight.keep.unwrap_or(DType::Work), args.site.span, args.site)
}
