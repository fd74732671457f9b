//! Hoists gathers of parameters out of repeated calls: the callee takes the gathered parameter as an operand.

use ir::{Builder, Call, Function, Id, Mismatch, Module, NodeId, Op, Rewriter, Type};
use smallvec::SmallVec;
use types::Name;

use super::site::{Calls, copy, each, finish, op};

/// Rewrites the function of a program and those of which its repeated calls are the only calls; returns how
/// many gathers were hoisted.
pub fn hoist_gathers(module: &mut Module, program: usize) -> Result<u64, Mismatch> {
    let caller = module.programs[program].function;
    let mut hoisted = 0;
    while let Some((node, call, gather)) = first(module, program) {
        gather.apply(module, caller, node, &call)?;
        hoisted += 1;
    }
    Ok(hoisted)
}

fn first(module: &Module, program: usize) -> Option<(NodeId, Call, GatherHoist)> {
    let program = &module.programs[program];
    let caller = &module.functions[program.function];
    let inputs = program.inputs.iter().zip(&caller.params);
    let parameters: Vec<NodeId> =
        inputs.filter(|(input, _)| module.is_parameter(input)).map(|(_, &param)| param).collect();
    let calls = Calls::of(module, caller);
    calls.repeated(caller).into_iter().find_map(|(node, call)| {
        let mut shared =
            (call.carried..call.carried + call.shared).filter(|&i| parameters.contains(&caller.nodes[node].args[i]));
        let gather = shared.find_map(|i| GatherHoist::of(module, &calls, &call, i))?;
        Some((node, call, gather))
    })
}

/// A gather of a shared operand, with what comes before it and the reshapes after it.
struct GatherHoist {
    /// Which operand of the repeated call.
    operand: usize,
    ops: Vec<Op>,
    /// Where the callee itself gathers: the last of the operators.
    own: Vec<NodeId>,
    inner: Vec<Inner>,
}

/// A call in the callee whose own callee gathers.
struct Inner {
    node: NodeId,
    call: Call,
    /// The last of the operators.
    gathers: Vec<NodeId>,
}

impl GatherHoist {
    /// The first one, with all places where it is repeated.
    fn of(module: &Module, calls: &Calls, call: &Call, operand: usize) -> Option<Self> {
        let callee = &module.functions[call.callee];
        let param = callee.params[operand];
        let users = callee.users();
        let own = chains(callee, &users, param);
        let mut inner = vec![];
        for &node in &users[param.index()] {
            let Some(call) = calls.only(&callee.nodes[node].inst) else { continue };
            let stacked = matches!(callee.ty(param), Type::Stack { .. });
            let fits = |i: usize| (call.times.is_none() || i >= call.carried) && call.is_stacked(i) == stacked;
            let place = callee.nodes[node].args.iter().position(|a| *a == param);
            if let Some(place) = place.filter(|i| fits(*i)) {
                let within = &module.functions[call.callee];
                inner.push((node, call, chains(within, &within.users(), within.params[place])));
            }
        }
        let ops = own.iter().chain(inner.iter().flat_map(|(.., chains)| chains)).next()?.0.clone();
        let alike = |chains: &[(Vec<Op>, NodeId)]| -> Vec<NodeId> {
            chains.iter().filter(|(other, _)| alike(other, &ops)).map(|(_, last)| *last).collect()
        };
        let own = alike(&own);
        let inner =
            inner.into_iter().map(|(node, call, chains)| Inner { node, call: call.clone(), gathers: alike(&chains) });
        let inner = inner.filter(|inner| !inner.gathers.is_empty()).collect();
        Some(Self { operand, ops, own, inner })
    }

    fn apply(&self, module: &mut Module, caller: Id<Function>, node: NodeId, call: &Call) -> Result<(), Mismatch> {
        let callee = module.functions[call.callee].clone();
        let of = callee.ty(callee.params[self.operand]);
        let mut calls = vec![];
        for inner in &self.inner {
            let old = module.functions[inner.call.callee].clone();
            let ty = old.ty(inner.gathers[0]).clone();
            let shared = inner.call.times.is_some() && matches!(of, Type::Tensor(_));
            let place = if shared { inner.call.carried + inner.call.shared } else { old.params.len() };
            module.functions[inner.call.callee] = with_operand(module, &old, ty, place, &inner.gathers, &[])?;
            calls.push((
                inner.node,
                Call { shared: inner.call.shared + usize::from(shared), ..inner.call.clone() },
                place,
            ));
        }

        let old = module.functions[caller].clone();
        let mut r = Rewriter::new(&old);
        for before in old.nodes.ids().take_while(|id| *id != node) {
            if !r.done(before) {
                copy(&mut r, module, before);
            }
        }
        r.b.place = callee.nodes[callee.params[self.operand]].place;
        let mut args = r.args(node);
        let gather = |b: &mut Builder, x| self.ops.iter().fold(x, |x, op| b.op(op.clone(), &[x]));
        let gathered = each(module, &mut r.b, "gather", args[self.operand], gather)?;
        let place = call.carried + call.shared;
        args.insert(place, gathered);
        let ty = r.b.function.ty(gathered).clone();
        module.functions[call.callee] = with_operand(module, &callee, ty, place, &self.own, &calls)?;
        r.b.place = old.nodes[node].place;
        let call = Call { shared: call.shared + 1, ..call.clone() };
        let all = r.b.call(call.clone(), &module.functions[call.callee], &args);
        r.set(node, all);
        for id in old.nodes.ids() {
            if !r.done(id) {
                copy(&mut r, module, id);
            }
        }
        module.functions[caller] = finish(r)?;
        Ok(())
    }
}

/// A function with one more parameter, of type `ty` at `place`. It replaces the nodes `gathers`, and each of `calls` takes it
/// as one more operand.
fn with_operand(
    module: &Module,
    old: &Function,
    ty: Type,
    place: usize,
    gathers: &[NodeId],
    calls: &[(NodeId, Call, usize)],
) -> Result<Function, Mismatch> {
    let mut r = Rewriter::new(old);
    let gathered = r.b.param(ty);
    gathers.iter().for_each(|&last| r.set(last, gathered));
    for id in old.nodes.ids() {
        if let Some((_, call, place)) = calls.iter().find(|(node, ..)| *node == id) {
            let mut args = r.args(id);
            args.insert(*place, gathered);
            r.b.place = old.nodes[id].place;
            let all = r.b.call(call.clone(), &module.functions[call.callee], &args);
            r.set(id, all);
        } else if !r.done(id) {
            copy(&mut r, module, id);
        }
    }
    let mut function = finish(r)?;
    function.params[place..].rotate_right(1);
    for (i, &param) in function.params.iter().enumerate() {
        function.nodes[param].inst = ir::Inst::Param(i);
    }
    Ok(function)
}

/// All gathers of a value, each with the casts and reshapes before it and the reshapes after it.
fn chains(function: &Function, users: &[SmallVec<[NodeId; 4]>], value: NodeId) -> Vec<(Vec<Op>, NodeId)> {
    let mut found = vec![];
    let mut todo = vec![(vec![], value)];
    while let Some((ops, at)) = todo.pop() {
        for &user in &users[at.index()] {
            let Some(next) = op(function, user) else { continue };
            let mut ops: Vec<Op> = ops.clone();
            ops.push(next.clone());
            match next {
                Op::Cast(_) | Op::Reshape(_) => todo.push((ops, user)),
                Op::AllGather(_) => {
                    let mut last = user;
                    while let &[only] = users[last.index()].as_slice()
                        && let Some(Op::Reshape(reshape)) = op(function, only)
                        && !function.results.contains(&last)
                    {
                        ops.push(reshape.clone().into());
                        last = only;
                    }
                    found.push((ops, last));
                }
                _ => {}
            }
        }
    }
    found
}

/// Whether two chains compute the same, whatever for.
fn alike(a: &[Op], b: &[Op]) -> bool {
    let plain = |op: &Op| match op {
        Op::AllGather(gather) => Op::AllGather(ir::ops::AllGather { why: Name::new(""), ..gather.clone() }),
        other => other.clone(),
    };
    a.iter().map(plain).eq(b.iter().map(plain))
}
