//! The function of one micro-batch: sums so far, parameters and a part of each feed in, the grown sums out.

use ir::{Builder, Function, Id, Input, Inst, Mismatch, Module, NodeId, Program};

use super::loss::Mean;
use crate::autodiff::Derivatives;

/// One sum for each result of `old`, and one more for the count of a mean, by which nothing is divided inside.
pub fn of(
    module: &mut Module,
    program: &Program,
    old: &Function,
    mean: Option<Mean>,
) -> Result<Id<Function>, Mismatch> {
    let mut b = Builder::new(module.fresh_name(&format!("{}.microbatch", old.name)));
    let counted = mean.map(|m| m.count);
    let sums: Vec<NodeId> = old.results.iter().copied().chain(counted).map(|r| b.param(old.ty(r).clone())).collect();
    let mut map: Vec<Option<NodeId>> = vec![None; old.nodes.len()];
    for feeds in [false, true] {
        for (_, &p) in program.inputs.iter().zip(&old.params).filter(|(i, _)| matches!(i, Input::Feed(_)) == feeds) {
            b.place = old.nodes[p].place;
            map[p.index()] = Some(b.param(old.ty(p).clone()));
        }
    }
    let mut count = None;
    let live = live(old, mean);
    for (id, node) in old.nodes.iter().filter(|(id, _)| live[id.index()]) {
        if map[id.index()].is_some() {
            continue;
        }
        b.place = node.place;
        let args: Option<Vec<NodeId>> = node.args.iter().map(|a| map[a.index()]).collect();
        let copied = args.map(|args| match &node.inst {
            Inst::Op(op) => b.op(op.clone(), &args),
            inst => b.push(inst.clone(), args, node.ty.clone()),
        });
        if counted == Some(id) {
            count = copied;
        }
        let divides = mean.is_some_and(|m| m.divisor == id);
        let one = divides.then(|| old.ty(id).element().map(|ty| b.constant(1.0, ty.dtype))).flatten();
        let new = one.or(copied).ok_or_else(|| Mismatch::new(format!("{id} reads a value that is not there")))?;
        map[id.index()] = Some(new);
    }
    let own: Option<Vec<NodeId>> = old.results.iter().map(|r| map[r.index()]).collect();
    let own = own.ok_or_else(|| Mismatch::new("a result is not there"))?;
    let mut derivatives = Derivatives::new(module);
    let grown = sums.into_iter().zip(own.into_iter().chain(count)).map(|(sum, x)| derivatives.add(&mut b, sum, x));
    b.function.results = grown.collect();
    let body = b.finish()?;
    Ok(module.functions.add(body))
}

/// Which nodes the results and the count depend on, where the divisor is a constant.
fn live(old: &Function, mean: Option<Mean>) -> Vec<bool> {
    let mut live = vec![false; old.nodes.len()];
    old.results.iter().copied().chain(mean.map(|m| m.count)).for_each(|id| live[id.index()] = true);
    let replaced = mean.filter(|m| m.divisor != m.count).map(|m| m.divisor);
    for (id, node) in old.nodes.iter().rev() {
        if live[id.index()] && replaced != Some(id) {
            node.args.iter().for_each(|a| live[a.index()] = true);
        }
    }
    live
}
