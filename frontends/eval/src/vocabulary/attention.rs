//! Attention and the rotation of its queries and keys.

use diag::Diagnostic;
use ir::ops;
use ir::ops::RopeForm;

use super::axes::position;
use super::tensor;
use crate::args::Args;
use crate::evaluator::Evaluator;
use crate::stop::Eval;
use crate::value::{Leaf, Operand, Value};

pub const METHODS: &[&str] = &["rotate_pairs", "rotate_halves"];

/// `x.rotate_pairs(HEAD, cos, sin)`: neighbours 2i and 2i + 1 are a pair; with `rotate_halves`, i and i + n/2.
pub fn method<'a>(ev: &mut Evaluator<'a>, x: Operand<'_>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
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
    let size = q.tensor().size_of(&head).unwrap_or(1).max(1);
    let op = ops::Attention { q_len, kv_len, heads, kv_heads, head, causal, scale: 1.0 / (size as f64).sqrt() };
    let operands = [
        Operand { leaf: &q, span: args.span(0) },
        Operand { leaf: &k, span: args.span(1) },
        Operand { leaf: &v, span: args.span(2) },
    ];
    let results = ev.trace.ops(op, &operands, args.site)?;
    match results.into_iter().next() {
        Some(out) => Ok(Value::Tensor(out)),
        None => Err(Diagnostic::error("attention without a result").at(args.site.span, "").into()),
    }
}
