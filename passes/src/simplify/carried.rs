//! Sums over ranks leave repeated calls: what each turn would reduce and add to a carried value is added up on each rank,
//! and reduced once after the last turn.

use ir::ops::{Add, AllReduce};
use ir::{Call, Function, Id, Inst, Mismatch, Module, NodeId, Op, Rewriter};
use types::TensorType;

/// Rewrites `caller` and those functions of which its repeated calls are the only calls; how many sums left.
pub fn hoist(module: &mut Module, caller: Id<Function>) -> Result<u64, Mismatch> {
    let mut left = 0;
    for id in module.functions[caller].nodes.ids().collect::<Vec<_>>() {
        let Inst::Call(call) = module.functions[caller].nodes[id].inst.clone() else { continue };
        if call.times.is_none_or(|times| times < 2) || calls(module, call.callee) != 1 {
            continue;
        }
        let callee = &module.functions[call.callee];
        let sums: Vec<Sum> = (0..call.carried).filter_map(|i| Sum::of(callee, i)).collect();
        if !sums.is_empty() {
            left += sums.len() as u64;
            let new = within(callee, &sums)?;
            module.functions[caller] = after(&module.functions[caller], id, &call, &sums)?;
            module.functions[call.callee] = new;
            return Ok(left + hoist(module, caller)?);
        }
    }
    Ok(left)
}

fn calls(module: &Module, callee: Id<Function>) -> usize {
    let nodes = module.functions.iter().flat_map(|(_, f)| f.nodes.iter());
    let called = nodes.filter(|(_, n)| matches!(&n.inst, Inst::Call(c) if c.callee == callee)).count();
    called + module.programs.iter().filter(|p| p.function == callee).count()
}

/// The `index`-th carried value grows by a sum over ranks in each turn, and nothing else looks at either.
struct Sum {
    index: usize,
    reduce: AllReduce,
    /// The sum over ranks, and what it is the sum of.
    node: NodeId,
    of: NodeId,
}

impl Sum {
    fn of(callee: &Function, index: usize) -> Option<Self> {
        let (param, result) = (callee.params[index], callee.results[index]);
        let users = callee.users();
        let returned = |id: NodeId| callee.results.iter().filter(|&&r| r == id).count();
        let only = |id: NodeId, user: NodeId| users[id.index()].as_slice() == [user] && returned(id) == 0;
        let (Op::Add(_), [a, b]) = (op(callee, result)?, callee.nodes[result].args.as_slice()) else { return None };
        let mut at = if *a == param { *b } else { *a };
        if !(*a == param || *b == param)
            || !only(param, result)
            || !users[result.index()].is_empty()
            || returned(result) != 1
        {
            return None;
        }
        let mut user = result;
        while only(at, user) && callee.ty(at).tensor()?.elements() == callee.ty(result).tensor()?.elements() {
            user = at;
            let from = *callee.nodes[at].args.first()?;
            let widens =
                |to: &TensorType| callee.ty(from).tensor().is_some_and(|t| t.dtype.bytes() <= to.dtype.bytes());
            match op(callee, at)? {
                Op::AllReduce(reduce) if !reduce.max => {
                    return Some(Self { index, reduce: reduce.clone(), node: at, of: from });
                }
                Op::Cast(_) if widens(callee.ty(at).tensor()?) => at = from,
                Op::Reshape(_) => at = from,
                _ => return None,
            }
        }
        None
    }
}

fn op(function: &Function, id: NodeId) -> Option<&Op> {
    if let Inst::Op(op) = &function.nodes[id].inst { Some(op) } else { None }
}

/// The callee, which adds up without reducing.
fn within(callee: &Function, sums: &[Sum]) -> Result<Function, Mismatch> {
    let mut r = Rewriter::new(callee);
    let live = callee.live();
    for id in callee.nodes.ids().filter(|id| live[id.index()]) {
        match sums.iter().find(|s| s.node == id) {
            Some(sum) => r.set(id, r.get(sum.of)),
            None if !r.done(id) => {
                r.copy(id);
            }
            None => {}
        }
    }
    r.finish()
}

/// The caller: the call at `id` starts from zeros, and what it carries out is reduced and added to what it carried in.
fn after(caller: &Function, id: NodeId, call: &Call, sums: &[Sum]) -> Result<Function, Mismatch> {
    let mut r = Rewriter::new(caller);
    let node = &caller.nodes[id];
    for before in caller.nodes.ids().take_while(|n| *n != id) {
        if !r.done(before) {
            r.copy(before);
        }
    }
    r.b.place = node.place;
    let mut args = r.args(id);
    let starts: Vec<NodeId> = sums.iter().map(|s| args[s.index]).collect();
    for sum in sums {
        let ty = r.b.ty(args[sum.index]).clone();
        args[sum.index] = r.b.zeros(&ty);
    }
    let new = r.b.push(Inst::Call(call.clone()), args, node.ty.clone());
    let single = node.ty.element().is_some();
    let mut grown = vec![];
    for (sum, start) in sums.iter().zip(starts) {
        let ty = r.b.ty(start).clone();
        let all = if single { new } else { r.b.push(Inst::Get(sum.index), [new], ty.into()) };
        let all = r.b.op(sum.reduce.clone(), &[all]);
        grown.push((sum.index, r.b.op(Add {}, &[start, all])));
    }
    r.set(id, if single { grown[0].1 } else { new });
    for (get, node) in caller.nodes.iter().filter(|(_, n)| n.args.first() == Some(&id)) {
        if let Inst::Get(i) = node.inst
            && let Some((_, value)) = grown.iter().find(|(index, _)| *index == i)
        {
            r.set(get, *value);
        }
    }
    r.finish()
}
