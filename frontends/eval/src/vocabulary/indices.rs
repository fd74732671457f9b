//! Arithmetic of indices: sums and orders along a dim, and the division of whole numbers.

use diag::Diagnostic;
use ir::{Op, ops};
use types::Dim;

use super::axes::position;
use super::tensor;
use crate::args::Args;
use crate::evaluator::Evaluator;
use crate::stop::Eval;
use crate::value::{Operand, Value};

pub const METHODS: &[&str] =
    &["cumsum", "argsort", "top_k", "argmax", "floor_div", "remainder", "write", "scatter_add"];

pub fn method<'a>(ev: &mut Evaluator<'a>, x: Operand<'_>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    let ty = x.leaf.tensor().clone();
    let own = |args: &Args<'a>| Ok::<_, crate::stop::Stop<'a>>(ty.dims[position(&ty, args, 0, x)?].name.clone());
    let leaf = match args.name.as_str() {
        "cumsum" => {
            args.expect(1, "x.cumsum(DIM)")?;
            ev.trace.op(ops::Cumsum { dim: own(args)?, reverse: false }, &[x], args.site)?
        }
        "argsort" => {
            args.expect(1, "x.argsort(DIM)")?;
            ev.trace.op(ops::Argsort { dim: own(args)?, descending: false }, &[x], args.site)?
        }
        "top_k" => {
            args.expect(2, "x.top_k(DIM, K)")?;
            let op = ops::TopK { dim: own(args)?, to: args.dim(1)? };
            let results = ev.trace.ops(op, &[x], args.site)?;
            return Ok(Value::Tuple(results.into_iter().map(Value::Tensor).collect()));
        }
        "write" => {
            args.expect(3, "state.write(DIM, ids, rows)")?;
            let (dim, ids, rows) = (own(args)?, tensor(ev, args, 1)?, tensor(ev, args, 2)?);
            let rows = ev.cast_leaf(&rows, ty.dtype, args.span(2), args.site)?;
            let at = [x.span, args.span(1), args.span(2)];
            let operands: Vec<Operand<'_>> =
                [x.leaf, &ids, &rows].into_iter().zip(at).map(|(leaf, span)| Operand { leaf, span }).collect();
            let written = ev.trace.op(ops::Write { dim }, &operands, args.site)?;
            ev.trace.note_changed(x.leaf, args.site.span);
            written
        }
        "scatter_add" => {
            args.expect(3, "rows.scatter_add(DIM, ids, TO)")?;
            let (dim, ids, to) = (own(args)?, tensor(ev, args, 1)?, args.dim(2)?);
            let batch = ids.tensor().dims.iter().map(|d| d.name.clone()).filter(|name| *name != dim).collect();
            let operands = [x, Operand { leaf: &ids, span: args.span(1) }];
            ev.trace.op(ops::ScatterAdd { dim: to, batch }, &operands, args.site)?
        }
        "argmax" => {
            args.expect(1, "x.argmax(DIM)")?;
            let dim = own(args)?;
            let to = Dim { name: dim.clone(), size: 1 };
            let ids = ev.trace.op(ops::TopK { dim: dim.clone(), to }, &[x], args.site)?;
            let dims = ty.without(std::slice::from_ref(&dim)).dims.to_vec();
            ev.trace.op(ops::Reshape { dims }, &[Operand { leaf: &ids, span: x.span }], args.site)?
        }
        name => {
            args.expect(1, &format!("a.{name}(b)"))?;
            let op: Op = if name == "floor_div" { ops::FloorDiv {}.into() } else { ops::Remainder {}.into() };
            if ty.dtype.is_float() {
                return Err(Diagnostic::error(format!("`{name}` of a tensor of {}", ty.dtype))
                    .at(args.site.span, "")
                    .at(x.span, format!("this is `{ty}`"))
                    .help("it is for whole numbers: cast to i64, or write `(a / b).floor()`")
                    .into());
            }
            let other = args.get(0)?;
            let at = other.1;
            let (a, b) = ev.promote((Value::Tensor(x.leaf.clone()), x.span), other, args.site)?;
            ev.trace.op(op, &[Operand { leaf: &a, span: x.span }, Operand { leaf: &b, span: at }], args.site)?
        }
    };
    Ok(Value::Tensor(leaf))
}
