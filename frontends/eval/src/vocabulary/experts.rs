//! Products of rows with the matrices of the experts that numbers name.

use diag::Diagnostic;
use ir::ops;
use types::{DType, Dim, GROUPS, Name, TensorType};

use super::axes::no_dim;
use super::tensor;
use crate::args::Args;
use crate::evaluator::Evaluator;
use crate::stop::{Eval, Stop};
use crate::value::{Leaf, Operand, Value};

pub const METHODS: &[&str] = &["grouped_matmul"];

/// `x.grouped_matmul(EXPERTS, ids, w)`: the products, and how many numbers name each expert.
pub fn method<'a>(ev: &mut Evaluator<'a>, x: Operand<'_>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    args.expect(3, "x.grouped_matmul(EXPERTS, ids, w)")?;
    let (ids, w) = (tensor(ev, args, 1)?, tensor(ev, args, 2)?);
    let ids = with_groups_of(ev, x, ids, args)?;
    let (ids, w) = (Operand { leaf: &ids, span: args.span(1) }, Operand { leaf: &w, span: args.span(2) });
    let expert = args.dim(0)?;
    let (rows, numbers, weight) = (x.leaf.tensor(), ids.leaf.tensor(), w.leaf.tensor());
    let size = weight.size_of(&expert.name).ok_or_else(|| no_dim(&expert.name, args.span(0), w))?;
    let shared = |d: &&Dim| d.name != expert.name && rows.position(&d.name).is_some();
    let (from, to): (Vec<&Dim>, Vec<&Dim>) =
        weight.dims.iter().filter(|d| d.name != expert.name).partition(|d| shared(d));
    let (&[from], &[to]) = (from.as_slice(), to.as_slice()) else {
        return Err(Diagnostic::error("a matrix of an expert has a dim of the rows and one of the products")
            .at(w.span, format!("this is `{weight}`"))
            .at(x.span, format!("this is `{rows}`"))
            .help("the first is summed and has its name in both, the second has a name of its own: `.rename(OLD, NEW)`")
            .into());
    };
    for dim in rows.dims.iter().filter(|d| d.name != from.name) {
        if numbers.position(&dim.name).is_none() {
            return Err(Diagnostic::error(format!("the numbers of experts have no dim {}", dim.name))
                .at(ids.span, format!("this is `{numbers}`"))
                .at(x.span, format!("this is `{rows}`"))
                .help("each row has numbers of its own: ids have all dims of the rows but the one that is summed")
                .into());
        }
    }
    // One letter for each name.
    let mut names: Vec<&Name> = numbers.dims.iter().map(|d| &d.name).collect();
    if let Some(both) = [from, to].into_iter().chain([&expert]).find(|d| names.contains(&&d.name)) {
        return Err(Diagnostic::error(format!("the numbers of experts have the dim {} of the matrices", both.name))
            .at(ids.span, format!("this is `{numbers}`"))
            .at(w.span, format!("this is `{weight}`"))
            .help("rename it in one of them: `.rename(OLD, NEW)`")
            .into());
    }
    let mut dims: Vec<Name> = names.iter().map(|n| (*n).clone()).collect();
    dims.sort_by_key(|name| *name != *GROUPS);
    dims.push(to.name.clone());
    names.extend([&from.name, &to.name, &expert.name]);
    if names.len() > 26 {
        return Err(Diagnostic::error("numbers of experts with more than 23 dims").at(ids.span, "").into());
    }
    let letter = |name: &Name| names.iter().position(|n| *n == name).map_or('a', |i| char::from(b'a' + i as u8));
    let spell = |ty: &TensorType| ty.dims.iter().map(|d| letter(&d.name)).collect::<String>();
    let out: String = dims.iter().map(letter).collect();
    let spec = format!("{},{},{}->{out}", spell(rows), spell(numbers), spell(weight));
    let y = ev.trace.op(ops::GroupedMatmul { spec, dims, among: None }, &[x, ids, w], args.site)?;
    let counts = counts(ev, ids, Dim { name: expert.name.clone(), size }, args)?;
    Ok(Value::Tuple([y, counts].into_iter().map(Value::Tensor).collect()))
}

/// How many numbers name each expert, in each data group; -1 names none.
fn counts<'a>(ev: &mut Evaluator<'a>, ids: Operand<'_>, experts: Dim, args: &Args<'a>) -> Eval<'a, Leaf> {
    let numbers = ids.leaf.tensor();
    let dims = numbers.dims.iter().map(|d| d.name.clone()).filter(|name| *name != *GROUPS).collect();
    let all = ev.trace.op(ops::Iota { dim: experts, dtype: numbers.dtype }, &[], args.site)?;
    let all = Operand { leaf: &all, span: ids.span };
    let sent = ev.trace.op(ops::Compare { kind: ops::Comparison::Equal }, &[ids, all], args.site)?;
    let sent = Operand { leaf: &sent, span: ids.span };
    let sent = ev.trace.op(ops::Cast { to: DType::I64 }, &[sent], args.site)?;
    let sent = Operand { leaf: &sent, span: ids.span };
    Ok(ev.trace.op(ops::ReduceSum { dims }, &[sent], args.site)?)
}

/// The numbers once for each data group, where rows are of data groups and numbers are the same for all.
fn with_groups_of<'a>(ev: &mut Evaluator<'a>, x: Operand<'_>, ids: Leaf, args: &Args<'a>) -> Result<Leaf, Stop<'a>> {
    let groups = x.leaf.tensor().dims.iter().find(|d| d.name == *GROUPS).cloned();
    match groups {
        Some(groups) if ids.tensor().position(GROUPS).is_none() => {
            let dims = [groups].into_iter().chain(ids.tensor().dims.iter().cloned()).collect();
            let ids = Operand { leaf: &ids, span: args.span(1) };
            Ok(ev.trace.op(ops::Broadcast { dims }, &[ids], args.site)?)
        }
        _ => Ok(ids),
    }
}
