//! Attention and the rotation of its queries and keys.

use diag::Diagnostic;
use ir::ops::RopeForm;
use ir::{Op, ops};
use types::{Dim, Name, TensorType};

use super::axes::position;
use super::tensor;
use crate::args::Args;
use crate::evaluator::Evaluator;
use crate::stop::Eval;
use crate::value::{Leaf, Operand, Value};

pub const METHODS: &[&str] = &["rotate_pairs", "rotate_halves", "segments", "positions", "window", "bias", "scale"];

pub fn method<'a>(ev: &mut Evaluator<'a>, x: Operand<'_>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    if args.name.starts_with("rotate_") { rotate(ev, x, args) } else { refine(ev, x, args) }
}

/// `attend(q, k, v).segments(q_ids, k_ids)` and its kin: the same attention, of which more is said.
fn refine<'a>(ev: &mut Evaluator<'a>, x: Operand<'_>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    let name = args.name.as_str();
    // What cut the result to the width of the values is done again.
    let mut after: Vec<Op> = vec![];
    let mut at = x.leaf.clone();
    let (mut op, mut operands) = loop {
        match ev.trace.maker(&at) {
            Some((Op::Attention(op), operands)) => break (op, operands),
            Some((op @ (Op::Reshape(_) | Op::Slice(_)), operands)) => {
                after.push(op);
                at = operands[0].clone();
            }
            _ => {
                return Err(Diagnostic::error(format!("`{name}` belongs to an attention"))
                    .at(args.site.span, "")
                    .at(x.span, "this is the result of something else")
                    .help(format!("write `attend(q, k, v).{name}(..)`, right behind it"))
                    .into());
            }
        }
    };
    let twice = || {
        Diagnostic::error(format!("the {name} of this attention are given twice")).at(args.site.span, "the second time")
    };
    let fixed = 3 + op.biases();
    match name {
        "bias" => {
            args.expect(1, "attend(q, k, v).bias(t)")?;
            if op.bias.is_some() {
                return Err(twice().into());
            }
            let bias = tensor(ev, args, 0)?;
            op.bias = Some(keys_of(bias.tensor(), operands[0].tensor(), &op, args)?);
            operands.insert(fixed, bias);
        }
        "segments" => {
            args.expect(2, "attend(q, k, v).segments(of_q, of_k)")?;
            if op.visibility.segments {
                return Err(twice().into());
            }
            op.visibility.segments = true;
            operands.splice(fixed..fixed, [tensor(ev, args, 0)?, tensor(ev, args, 1)?]);
        }
        "positions" => {
            args.expect(2, "attend(q, k, v).positions(of_q, of_k)")?;
            if op.visibility.positions {
                return Err(twice().into());
            }
            op.visibility.positions = true;
            operands.extend([tensor(ev, args, 0)?, tensor(ev, args, 1)?]);
        }
        "window" => {
            args.expect(2, "attend(q, k, v).window(left, right)")?;
            (op.visibility.left, op.visibility.right) = (Some(args.count(0)? as u64), Some(args.count(1)? as u64));
        }
        _ => {
            args.expect(1, "attend(q, k, v).scale(s)")?;
            op.scale = args.number(0)?;
        }
    }
    let spans = |i: usize| if i < fixed { x.span } else { args.site.span };
    let all: Vec<Operand<'_>> = operands.iter().enumerate().map(|(i, leaf)| Operand { leaf, span: spans(i) }).collect();
    let mut out = first(ev.trace.ops(op, &all, args.site)?, args)?;
    for op in after.into_iter().rev() {
        out = ev.trace.op(op, &[Operand { leaf: &out, span: x.span }], args.site)?;
    }
    Ok(Value::Tensor(out))
}

/// The axis of a bias that runs along the keys: the one that queries do not have.
fn keys_of<'a>(bias: &TensorType, q: &TensorType, op: &ops::Attention, args: &Args<'a>) -> Eval<'a, Name> {
    let others: Vec<&Dim> = bias.dims.iter().filter(|d| q.position(&d.name).is_none()).collect();
    match others.as_slice() {
        [key] => Ok(key.name.clone()),
        [] => Err(Diagnostic::error("this bias is the same for all keys of a query, so that it changes nothing")
            .at(args.span(0), format!("this is `{bias}`, without an axis of keys"))
            .help(match op.q_len == op.kv_len {
                true => format!(
                    "queries and keys are both {0}: give the keys another name, `.rename({0}, KEYS)`",
                    op.kv_len
                ),
                false => format!("the keys' axis is {}", op.kv_len),
            })
            .into()),
        _ => Err(Diagnostic::error("this bias has axes that the scores have not")
            .at(args.span(0), format!("this is `{bias}`"))
            .help(format!("it has the keys' axis and any of those of `{}` but {}", q, op.head))
            .into()),
    }
}

fn first<'a>(results: Vec<Leaf>, args: &Args<'a>) -> Eval<'a, Leaf> {
    let none = || Diagnostic::error("attention without a result").at(args.site.span, "").into();
    results.into_iter().next().ok_or_else(none)
}

/// `x.rotate_pairs(HEAD, cos, sin)`: neighbours 2i and 2i + 1 are a pair; with `rotate_halves`, i and i + n/2.
fn rotate<'a>(ev: &mut Evaluator<'a>, x: Operand<'_>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    args.expect(3, &format!("x.{}(HEAD, cos, sin)", args.name))?;
    let ty = x.leaf.tensor();
    let dim = ty.dims[position(ty, args, 0, x)?].name.clone();
    let form = if args.name == "rotate_pairs" { RopeForm::Interleaved } else { RopeForm::Half };
    let (cos, sin) = (tensor(ev, args, 1)?, tensor(ev, args, 2)?);
    let operands = [x, Operand { leaf: &cos, span: args.span(1) }, Operand { leaf: &sin, span: args.span(2) }];
    Ok(Value::Tensor(ev.trace.op(ops::Rope { dim, form }, &operands, args.site)?))
}

/// `attend(q, k, v)`: each ends in the dims [length, heads, head]; scores are divided by the root of the head's size.
pub fn attend<'a>(ev: &mut Evaluator<'a>, args: &Args<'a>, causal: bool) -> Eval<'a, Value<'a>> {
    args.expect(3, &format!("{}(q, k, v)", args.name))?;
    let (q, k, v) = (tensor(ev, args, 0)?, tensor(ev, args, 1)?, tensor(ev, args, 2)?);
    let last_three = |leaf: &Leaf, i: usize| {
        let dims = &leaf.tensor().dims;
        match dims.len().checked_sub(3) {
            Some(at) => Ok([&dims[at].name, &dims[at + 1].name, &dims[at + 2].name].map(Clone::clone)),
            None => Err(Diagnostic::error(format!("`{}` takes tensors that end in [length, heads, head]", args.name))
                .at(args.span(i), format!("this is `{}`", leaf.ty))),
        }
    };
    let [q_len, heads, head] = last_three(&q, 0)?;
    let [kv_len, kv_heads, _] = last_three(&k, 1)?;
    let [.., of_values] = last_three(&v, 2)?;
    let size = q.tensor().size_of(&head).unwrap_or(1).max(1);
    let op = ops::Attention {
        q_len,
        kv_len,
        heads,
        kv_heads,
        head,
        causal,
        scale: 1.0 / (size as f64).sqrt(),
        visibility: ops::Visibility::default(),
        bias: None,
    };
    // The last dim of each is a head's.
    let others = |leaf: &Leaf| leaf.tensor().dims.split_last().map(|(_, others)| others.to_vec());
    if of_values == op.head || others(&k) != others(&v) {
        let operands = [&q, &k, &v].map(|leaf| Operand { leaf, span: args.site.span });
        let operands: Vec<Operand<'_>> =
            operands.into_iter().enumerate().map(|(i, o)| Operand { span: args.span(i), ..o }).collect();
        let out = first(ev.trace.ops(op, &operands, args.site)?, args)?;
        return Ok(Value::Tensor(out));
    }
    // Values of another width: the narrower side is padded with zeros, which change no product.
    let values = Dim { size: v.tensor().size_of(&of_values).unwrap_or(1), name: of_values };
    let widest = size.max(values.size);
    let q = padded(ev, q, (&op.head, size), (&op.head, widest), args, 0)?;
    let k = padded(ev, k, (&op.head, size), (&op.head, widest), args, 1)?;
    let v = padded(ev, v, (&values.name, values.size), (&op.head, widest), args, 2)?;
    let head = op.head.clone();
    let operands = [(&q, 0), (&k, 1), (&v, 2)].map(|(leaf, i)| Operand { leaf, span: args.span(i) });
    let mut out = first(ev.trace.ops(op, &operands, args.site)?, args)?;
    let own = |leaf: &Leaf| leaf.tensor().dims.to_vec();
    if values.size < widest {
        let slice = ops::Slice { dim: head.clone(), start: 0, size: values.size };
        out = ev.trace.op(slice, &[Operand { leaf: &out, span: args.site.span }], args.site)?;
    }
    let mut dims = own(&out);
    dims.iter_mut().filter(|d| d.name == head).for_each(|d| *d = values.clone());
    let out = ev.trace.op(ops::Reshape { dims }, &[Operand { leaf: &out, span: args.site.span }], args.site)?;
    Ok(Value::Tensor(out))
}

/// `x` with zeros behind its dim up to another size, and under another name.
fn padded<'a>(
    ev: &mut Evaluator<'a>,
    x: Leaf,
    (dim, size): (&Name, usize),
    (name, widest): (&Name, usize),
    args: &Args<'a>,
    i: usize,
) -> Eval<'a, Leaf> {
    let mut x = x;
    if size < widest {
        let pad = ops::Pad { dim: dim.clone(), before: 0, after: widest - size, value: 0.0 };
        x = ev.trace.op(pad, &[Operand { leaf: &x, span: args.span(i) }], args.site)?;
    }
    if dim == name {
        return Ok(x);
    }
    let mut dims = x.tensor().dims.to_vec();
    dims.iter_mut().filter(|d| d.name == *dim).for_each(|d| d.name = name.clone());
    Ok(ev.trace.op(ops::Reshape { dims }, &[Operand { leaf: &x, span: args.span(i) }], args.site)?)
}
