//! Axes: splitting, merging, renaming, reordering, cutting and joining them, by name.

use diag::{Diagnostic, Span};
use ir::ops;
use types::{Dim, GROUPS, Name, TensorType};

use crate::args::Args;
use crate::evaluator::Evaluator;
use crate::stop::{Eval, Stop};
use crate::value::{Leaf, Operand, Value};

pub const METHODS: &[&str] =
    &["split", "merge", "rename", "transpose", "expand", "squeeze", "slice", "at", "unstack", "pad"];

pub fn method<'a>(ev: &mut Evaluator<'a>, x: Operand<'_>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    let ty = x.leaf.tensor().clone();
    let leaf = match args.name.as_str() {
        "split" => {
            args.expect(2, "x.split(DIM, [A, B])")?;
            let (at, into) = (position(&ty, args, 0, x)?, args.dims(1)?);
            let product = product(&into);
            if product != Some(ty.dims[at].size) {
                return Err(parts(&ty.dims[at], &into, args.span(1), x));
            }
            let mut dims = ty.dims.to_vec();
            dims.splice(at..=at, into);
            reshape(ev, x, dims, args)?
        }
        "merge" => {
            args.expect(2, "x.merge([A, B], DIM)")?;
            let (from, into) = (args.dims(0)?, args.dim(1)?);
            let first = ev.trace.groups_first(x, args.site)?;
            let (x, ty) = (Operand { leaf: &first, ..x }, first.tensor());
            let at = run(ty, &from, args, x)?;
            let own: Vec<Dim> = ty.dims[at..at + from.len()].to_vec();
            if product(&own) != Some(into.size) {
                return Err(parts(&into, &own, args.span(1), x));
            }
            let mut dims = ty.dims.to_vec();
            dims.splice(at..at + from.len(), [into]);
            reshape(ev, x, dims, args)?
        }
        "rename" => {
            args.expect(2, "x.rename(OLD, NEW)")?;
            let at = position(&ty, args, 0, x)?;
            let mut dims = ty.dims.to_vec();
            let to = args.dim(1)?;
            if to.size == 0 {
                ev.trace.check_size(&TensorType::new(ty.dtype, [to.clone()]), args.span(1))?;
            }
            dims[at].name = to.name;
            reshape(ev, x, dims, args)?
        }
        "squeeze" => {
            args.expect(1, "x.squeeze(ONE)")?;
            let at = position(&ty, args, 0, x)?;
            if ty.dims[at].size != 1 {
                return Err(Diagnostic::error(format!("`squeeze` drops a dim of size 1, this is {}", ty.dims[at]))
                    .at(args.span(0), "")
                    .at(x.span, format!("this is `{ty}`"))
                    .help("`.at(DIM, 0)` takes the first element of any dim")
                    .into());
            }
            let mut dims = ty.dims.to_vec();
            dims.remove(at);
            reshape(ev, x, dims, args)?
        }
        "transpose" => {
            args.expect(1, "x.transpose([B, A])")?;
            let mut order = args.names(0)?;
            if ty.position(GROUPS).is_some() && !order.iter().any(|name| *name == *GROUPS) {
                order.insert(0, GROUPS.into());
            }
            if ty.dims.iter().map(|d| &d.name).eq(order.iter()) {
                x.leaf.clone()
            } else {
                ev.trace.op(ops::Transpose { order }, &[x], args.site)?
            }
        }
        "expand" => {
            args.expect(1, "x.expand([A, B])")?;
            let own = |d: Dim| ty.size_of(&d.name).map_or(d.clone(), |size| Dim { name: d.name, size });
            let own_groups = ty.dims.iter().find(|d| d.name == *GROUPS).cloned();
            let dims: Vec<Dim> = args.dims(0)?.into_iter().map(own).collect();
            let dims = match own_groups {
                Some(groups) => [groups].into_iter().chain(dims).collect(),
                None => ev.with_groups(dims),
            };
            ev.trace.check_size(&TensorType::new(ty.dtype, dims.iter().cloned()), args.site.span)?;
            if ty.dims.as_slice() == dims {
                x.leaf.clone()
            } else {
                ev.trace.op(ops::Broadcast { dims }, &[x], args.site)?
            }
        }
        "slice" => {
            args.expect(2, "x.slice(DIM, 1..3)")?;
            let at = position(&ty, args, 0, x)?;
            let (start, size) = args.part(1, ty.dims[at].size)?;
            slice(ev, x, &ty.dims[at], start, size, args)?
        }
        "at" => {
            args.expect(2, "x.at(DIM, 0)")?;
            let (at, index) = (position(&ty, args, 0, x)?, args.count(1)?);
            element(ev, x, at, index, args)?
        }
        "unstack" => {
            args.expect(1, "x.unstack(DIM)")?;
            let at = position(&ty, args, 0, x)?;
            if ty.dims[at].size > 1024 {
                return Err(Diagnostic::error(format!("`unstack` of {}: that many tensors", ty.dims[at]))
                    .at(args.site.span, "")
                    .into());
            }
            let items: Eval<'a, Vec<_>> =
                (0..ty.dims[at].size).map(|i| Ok(Value::Tensor(element(ev, x, at, i, args)?))).collect();
            return Ok(Value::array(items?));
        }
        _ => {
            args.expect(4, "x.pad(DIM, before, after, value)")?;
            let at = position(&ty, args, 0, x)?;
            let (before, after, value) = (args.count(1)?, args.count(2)?, args.number(3)?);
            if (before, after) == (0, 0) {
                x.leaf.clone()
            } else {
                let mut padded = ty.clone();
                padded.dims[at].size = padded.dims[at].size.saturating_add(before).saturating_add(after);
                ev.trace.check_size(&padded, args.site.span)?;
                let dim = ty.dims[at].name.clone();
                ev.trace.op(ops::Pad { dim, before, after, value }, &[x], args.site)?
            }
        }
    };
    Ok(Value::Tensor(leaf))
}

/// `concat(DIM, [a, b])`.
pub fn concat<'a>(ev: &mut Evaluator<'a>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    args.expect(2, "concat(DIM, [a, b])")?;
    let dim = args.dim(0)?.name;
    let mut leaves: Vec<(Leaf, Span)> = vec![];
    for (value, span) in args.array(1)? {
        leaves.push((ev.leaf(value, span, args.site)?, span));
    }
    let operands: Vec<Operand<'_>> = leaves.iter().map(|(leaf, span)| Operand { leaf, span: *span }).collect();
    let wide = ev.trace.in_all_groups(&operands, args.site)?;
    let operands: Vec<Operand<'_>> =
        wide.iter().zip(&operands).map(|(leaf, o)| Operand { leaf, span: o.span }).collect();
    Ok(Value::Tensor(ev.trace.op(ops::Concat { dim }, &operands, args.site)?))
}

/// Where the dim that argument `i` names stands in the tensor.
pub fn position<'a>(ty: &TensorType, args: &Args<'a>, i: usize, x: Operand<'_>) -> Eval<'a, usize> {
    let dim = args.dim(i)?;
    ty.position(&dim.name).ok_or_else(|| no_dim(&dim.name, args.span(i), x))
}

pub fn no_dim<'a>(name: &Name, at: Span, x: Operand<'_>) -> Stop<'a> {
    let own = x.leaf.tensor().dims.iter().map(|d| d.name.as_str());
    Diagnostic::error(format!("this tensor has no dim {name}"))
        .at(at, format!("{name} is not among its dims"))
        .at(x.span, format!("this is `{}`", x.leaf.ty))
        .help(format!("its dims are {}", crate::suggest::listed(own)))
        .into()
}

/// Where the run of dims `from` starts in the tensor.
fn run<'a>(ty: &TensorType, from: &[Dim], args: &Args<'a>, x: Operand<'_>) -> Eval<'a, usize> {
    let Some(first) = from.first() else {
        return Err(Diagnostic::error("`merge` of no dims").at(args.span(0), "").into());
    };
    for d in from {
        ty.position(&d.name).ok_or_else(|| no_dim(&d.name, args.span(0), x))?;
    }
    let at = ty.position(&first.name).unwrap_or(0);
    if ty.dims[at..].iter().map(|d| &d.name).take(from.len()).eq(from.iter().map(|d| &d.name)) {
        return Ok(at);
    }
    Err(Diagnostic::error("`merge` joins neighbours")
        .at(args.span(0), "these dims do not stand side by side in this order")
        .at(x.span, format!("this is `{ty}`"))
        .help("`.transpose([..])` first")
        .into())
}

fn product(dims: &[Dim]) -> Option<usize> {
    dims.iter().try_fold(1usize, |n, d| n.checked_mul(d.size))
}

fn parts<'a>(whole: &Dim, parts: &[Dim], at: Span, x: Operand<'_>) -> Stop<'a> {
    let listed = parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" * ");
    let product = product(parts).map_or("too many".into(), |n| n.to_string());
    Diagnostic::error(format!("{listed} is {product}, {} is {}", whole.name, whole.size))
        .at(at, "the sizes do not multiply to the whole")
        .at(x.span, format!("this is `{}`", x.leaf.ty))
        .into()
}

fn reshape<'a>(ev: &mut Evaluator<'a>, x: Operand<'_>, dims: Vec<Dim>, args: &Args<'a>) -> Eval<'a, Leaf> {
    if x.leaf.tensor().dims.as_slice() == dims {
        return Ok(x.leaf.clone());
    }
    Ok(ev.trace.op(ops::Reshape { dims }, &[x], args.site)?)
}

fn slice<'a>(
    ev: &mut Evaluator<'a>,
    x: Operand<'_>,
    dim: &Dim,
    start: usize,
    size: usize,
    args: &Args<'a>,
) -> Eval<'a, Leaf> {
    if size == dim.size {
        return Ok(x.leaf.clone());
    }
    Ok(ev.trace.op(ops::Slice { dim: dim.name.clone(), start, size }, &[x], args.site)?)
}

/// One element along a dim, which goes away.
fn element<'a>(ev: &mut Evaluator<'a>, x: Operand<'_>, at: usize, index: usize, args: &Args<'a>) -> Eval<'a, Leaf> {
    let dim = &x.leaf.tensor().dims[at];
    if index >= dim.size {
        return Err(Diagnostic::error(format!("element {index} of {dim}"))
            .at(args.site.span, format!("there are {} elements", dim.size))
            .at(x.span, format!("this is `{}`", x.leaf.ty))
            .into());
    }
    let one = slice(ev, x, dim, index, 1, args)?;
    let mut dims = x.leaf.tensor().dims.to_vec();
    dims.remove(at);
    reshape(ev, Operand { leaf: &one, span: x.span }, dims, args)
}
