//! Sums, means, norms, softmax, contractions, look-ups and cross entropy.

use diag::Diagnostic;
use ir::ops;
use types::{DType, Dim, GROUPS, MICROBATCHES, Name, TensorType};

use super::axes::{no_dim, position};
use super::tensor;
use crate::args::Args;
use crate::evaluator::Evaluator;
use crate::operator::number_like;
use crate::stop::Eval;
use crate::value::{Leaf, Operand, Value};

pub const METHODS: &[&str] = &[
    "sum",
    "sum_over",
    "mean",
    "mean_over",
    "mean_over_microbatches",
    "max_over",
    "softmax",
    "normalize",
    "rms_normalize",
    "contract",
    "gather",
];

pub fn method<'a>(ev: &mut Evaluator<'a>, x: Operand<'_>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    let ty = x.leaf.tensor().clone();
    let all = || ty.dims.iter().map(|d| d.name.clone()).collect::<Vec<_>>();
    let leaf = match args.name.as_str() {
        "sum" => {
            args.expect(0, "x.sum()")?;
            sum(ev, x, all(), args)?
        }
        "sum_over" => {
            args.expect(1, "x.sum_over([A, B])")?;
            sum(ev, x, own_names(args, 0, x)?, args)?
        }
        "mean" => {
            args.expect(0, "x.mean()")?;
            mean(ev, x, all(), args)?
        }
        "mean_over" => {
            args.expect(1, "x.mean_over([A, B])")?;
            mean(ev, x, own_names(args, 0, x)?, args)?
        }
        "mean_over_microbatches" => {
            args.expect(0, "x.mean_over_microbatches()")?;
            over_microbatches(ev, x, args)?
        }
        "max_over" => {
            args.expect(1, "x.max_over([A, B])")?;
            ev.trace.op(ops::ReduceMax { dims: own_names(args, 0, x)? }, &[x], args.site)?
        }
        "softmax" => {
            args.expect(1, "x.softmax(DIM)")?;
            let dim = ty.dims[position(&ty, args, 0, x)?].name.clone();
            ev.trace.op(ops::Softmax { dim }, &[x], args.site)?
        }
        "normalize" | "rms_normalize" => {
            args.expect(2, &format!("x.{}(DIM, eps)", args.name))?;
            let dim = ty.dims[position(&ty, args, 0, x)?].name.clone();
            let eps = args.number(1)?;
            match args.name.as_str() {
                "normalize" => ev.trace.op(ops::LayerNorm { dim, eps }, &[x], args.site)?,
                _ => ev.trace.op(ops::RmsNorm { dim, eps }, &[x], args.site)?,
            }
        }
        "gather" => {
            args.expect(2, "table.gather(DIM, ids)")?;
            let dim = ty.dims[position(&ty, args, 0, x)?].name.clone();
            let ids = tensor(ev, args, 1)?;
            ev.trace.op(ops::Gather { dim }, &[x, Operand { leaf: &ids, span: args.span(1) }], args.site)?
        }
        _ => {
            args.expect(2, "x.contract(y, [DIM])")?;
            let y = tensor(ev, args, 0)?;
            let over = args.names(1)?;
            contract(ev, x, Operand { leaf: &y, span: args.span(0) }, &over, args)?
        }
    };
    Ok(Value::Tensor(leaf))
}

fn own_names<'a>(args: &Args<'a>, i: usize, x: Operand<'_>) -> Eval<'a, Vec<Name>> {
    let names = args.names(i)?;
    match names.iter().find(|n| x.leaf.tensor().position(n).is_none()) {
        Some(name) => Err(no_dim(name, args.span(i), x)),
        None => Ok(names),
    }
}

fn sum<'a>(ev: &mut Evaluator<'a>, x: Operand<'_>, dims: Vec<Name>, args: &Args<'a>) -> Eval<'a, Leaf> {
    if dims.is_empty() {
        return Ok(x.leaf.clone());
    }
    Ok(ev.trace.op(ops::ReduceSum { dims }, &[x], args.site)?)
}

fn mean<'a>(ev: &mut Evaluator<'a>, x: Operand<'_>, dims: Vec<Name>, args: &Args<'a>) -> Eval<'a, Leaf> {
    let ty = x.leaf.tensor();
    if let Some(ragged) = dims.iter().find(|name| ev.is_ragged(name)) {
        return Err(Diagnostic::error(format!("a mean over `{ragged}` counts rows that are not there"))
            .at(args.site.span, format!("of `{ty}`"))
            .note("a ragged axis has room for more rows than data give")
            .help("sum what is there, by a mask, and divide by its count")
            .into());
    }
    let n: f64 = dims.iter().filter_map(|d| ty.size_of(d)).map(|n| n as f64).product();
    if n == 0.0 {
        return Err(Diagnostic::error("the mean of no elements").at(args.site.span, format!("of `{ty}`")).into());
    }
    let dtype = ty.dtype;
    let total = sum(ev, x, dims, args)?;
    if n == 1.0 {
        return Ok(total);
    }
    let count = number_like(&Value::Float(n), dtype, args.site.span)?;
    let (total, count) = (Operand { leaf: &total, span: x.span }, Operand { leaf: &count, span: x.span });
    Ok(ev.trace.op(ops::Div {}, &[total, count], args.site)?)
}

/// A number that a step of several micro-batches takes the mean of, whatever it is made of; over data groups, too.
fn over_microbatches<'a>(ev: &mut Evaluator<'a>, x: Operand<'_>, args: &Args<'a>) -> Eval<'a, Leaf> {
    let dims: Vec<Name> = x.leaf.tensor().dims.iter().map(|d| d.name.clone()).collect();
    if let Some(dim) = dims.iter().find(|name| **name != *GROUPS) {
        return Err(Diagnostic::error(format!("a micro-batch has one number, and this tensor has the dim {dim}"))
            .at(x.span, format!("this is `{}`", x.leaf.tensor()))
            .help("take its sum or its mean first")
            .into());
    }
    let one = mean(ev, x, dims, args)?;
    let dim = Dim { name: MICROBATCHES.into(), size: 1 };
    let marked = ev.trace.op(ops::Reshape { dims: vec![dim] }, &[Operand { leaf: &one, span: x.span }], args.site)?;
    sum(ev, Operand { leaf: &marked, span: x.span }, vec![MICROBATCHES.into()], args)
}

/// Sums of products over the dims in `over`; other dims that both have are batch dims.
pub fn contract<'a>(
    ev: &mut Evaluator<'a>,
    x: Operand<'_>,
    y: Operand<'_>,
    over: &[Name],
    args: &Args<'a>,
) -> Eval<'a, Leaf> {
    let (a, b) = (x.leaf.tensor(), y.leaf.tensor());
    for name in over {
        for operand in [x, y] {
            if operand.leaf.tensor().position(name).is_none() {
                return Err(no_dim(name, args.site.span, operand));
            }
        }
    }
    // One letter for each name.
    let names: Vec<&Name> =
        (a.dims.iter().chain(b.dims.iter().filter(|d| a.position(&d.name).is_none()))).map(|d| &d.name).collect();
    if names.len() > 26 {
        return Err(Diagnostic::error("a contraction of more than 26 dims").at(args.site.span, "").into());
    }
    let letter = |name: &Name| names.iter().position(|n| *n == name).map_or('a', |i| (b'a' + i as u8) as char);
    let spell = |ty: &TensorType| ty.dims.iter().map(|d| letter(&d.name)).collect::<String>();
    let (left, right) = (spell(a), spell(b));
    let mut kept: Vec<Name> = names.iter().filter(|n| !over.contains(n)).map(|n| (*n).clone()).collect();
    kept.sort_by_key(|name| *name != *GROUPS);
    let out: String = kept.iter().map(letter).collect();
    let op = ops::Matmul { spec: format!("{left},{right}->{out}"), dims: kept, dtype: None };
    Ok(ev.trace.op(op, &[x, y], args.site)?)
}

/// `cross_entropy(logits, labels, DIM, ignored)`: the loss of each row, 0 where its label is `ignored`.
pub fn cross_entropy<'a>(ev: &mut Evaluator<'a>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    args.expect(4, "cross_entropy(logits, labels, VOCAB, -100)")?;
    let (logits, labels) = (tensor(ev, args, 0)?, tensor(ev, args, 1)?);
    let logits = ev.cast_leaf(&logits, DType::F32, args.span(0), args.site)?;
    let dim = args.dim(2)?.name;
    let ignore = crate::value::whole(&args.get(3)?.0)
        .ok_or_else(|| Diagnostic::error("the ignored label is a whole number").at(args.span(3), ""))?;
    let operands = [Operand { leaf: &logits, span: args.span(0) }, Operand { leaf: &labels, span: args.span(1) }];
    Ok(Value::Tensor(ev.trace.op(ops::CrossEntropy { dim, ignore }, &operands, args.site)?))
}
