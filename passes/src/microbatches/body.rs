//! The function of one micro-batch: sums so far, parameters and a part of each feed in, the grown sums out.

use ir::{Builder, Function, Id, Input, Inst, Mismatch, Module, NodeId, Program};

use super::loss::Loss;
use crate::autodiff::Derivatives;

/// One sum for each result of `old`, where the factors of the loss are 1, and one for each sum that they are made of.
pub fn of(module: &mut Module, program: &Program, old: &Function, loss: &Loss) -> Result<Id<Function>, Mismatch> {
    let mut b = Builder::new(module.fresh_name(&format!("{}.microbatch", old.name)));
    let counted = || loss.sums.iter().map(|(sum, _)| *sum);
    let sums: Vec<NodeId> = old.results.iter().copied().chain(counted()).map(|r| b.param(old.ty(r).clone())).collect();
    let mut map: Vec<Option<NodeId>> = vec![None; old.nodes.len()];
    for feeds in [false, true] {
        for (_, &p) in program.inputs.iter().zip(&old.params).filter(|(i, _)| matches!(i, Input::Feed(_)) == feeds) {
            b.place = old.nodes[p].place;
            map[p.index()] = Some(b.param(old.ty(p).clone()));
        }
    }
    // A sum may be a factor itself: it is added up as it is, and 1 for whom it multiplies or divides.
    let mut own: Vec<Option<NodeId>> = vec![None; loss.sums.len()];
    let live = live(old, loss);
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
        if let Some(at) = counted().position(|sum| sum == id) {
            own[at] = copied;
        }
        let one = loss.is_factor(id).then(|| old.ty(id).element().map(|ty| b.constant(1.0, ty.dtype))).flatten();
        let new = one.or(copied).ok_or_else(|| Mismatch::new(format!("{id} reads a value that is not there")))?;
        map[id.index()] = Some(new);
    }
    let results = old.results.iter().map(|r| map[r.index()]);
    let all: Option<Vec<NodeId>> = results.chain(own).collect();
    let all = all.ok_or_else(|| Mismatch::new("a result is not there"))?;
    let mut derivatives = Derivatives::new(module);
    let grown = sums.into_iter().zip(all).map(|(sum, x)| derivatives.add(&mut b, sum, x));
    b.function.results = grown.collect();
    let body = b.finish()?;
    Ok(module.functions.add(body))
}

/// Which nodes the results and the sums depend on, where the factors are constants.
fn live(old: &Function, loss: &Loss) -> Vec<bool> {
    let is_sum = |id: NodeId| loss.sums.iter().any(|(sum, _)| *sum == id);
    let mut live = vec![false; old.nodes.len()];
    old.results.iter().copied().chain(loss.sums.iter().map(|s| s.0)).for_each(|id| live[id.index()] = true);
    for (id, node) in old.nodes.iter().rev() {
        if live[id.index()] && (is_sum(id) || !loss.is_factor(id)) {
            node.args.iter().for_each(|a| live[a.index()] = true);
        }
    }
    live
}
