//! Moves a collective that a function applies to one operand alone into the function that makes this operand, where its
//! result is often known already. So residuals are kept in the form in which the backward reads them.

use std::cell::LazyCell;

use ir::{Builder, Class, Collective, Function, Id, Inst, Mismatch, Module, NodeId, Op, Rewriter, Type};
use smallvec::SmallVec;
use types::TensorType;

use crate::hoist_collectives::Calls;

/// A value that one call hands to another, which applies a collective to it.
pub struct MovableCollective {
    pub from: Id<Function>,
    pub to: Id<Function>,
    /// The nodes of the two calls.
    calls: [NodeId; 2],
    /// Which result of the one is which operand of the other.
    result: usize,
    operand: usize,
    /// The collective, what it takes and the views after it, in `to`.
    moved: Vec<NodeId>,
    /// Whether nobody wants the value as it is handed over now.
    replaced: bool,
}

impl MovableCollective {
    /// All within `caller`, between functions that are called nowhere else.
    pub fn all(module: &Module, caller: Id<Function>) -> Vec<Self> {
        let function = &module.functions[caller];
        let (users, calls) = (function.users(), Calls::of(module, function));
        let mut out = vec![];
        for (at, node) in function.nodes.iter() {
            let Some(to) = calls.only(&node.inst) else { continue };
            let callee = &module.functions[to.callee];
            let reads = LazyCell::new(|| callee.users());
            for (operand, &value) in node.args.iter().enumerate() {
                let (source, result) = match function.nodes[value].inst {
                    Inst::Get(i) => (function.nodes[value].args[0], i),
                    _ => (value, 0),
                };
                let Some(from) = calls.only(&function.nodes[source].inst) else { continue };
                let stacked = result >= from.carried && to.is_stacked(operand) && from.times == to.times;
                let plain = from.times.is_none() && to.times.is_none();
                if !(stacked || plain) {
                    continue;
                }
                let param = callee.params[operand];
                let Some(moved) = alone(callee, &reads, param) else { continue };
                let asked = |users: &[NodeId], results: &[NodeId], id| {
                    users.len() + results.iter().filter(|&&r| r == id).count()
                };
                let within = std::iter::once(&param).chain(&moved[..moved.len() - 1]);
                let replaced = asked(&users[value.index()], &function.results, value) == 1
                    && within.copied().all(|id| asked(&reads[id.index()], &callee.results, id) == 1);
                let (from, to, calls) = (from.callee, to.callee, [source, at]);
                out.push(Self { from, to, calls, result, operand, moved, replaced });
            }
        }
        out
    }

    /// Moves the collective from one function to the other.
    pub fn apply(&self, module: &mut Module, caller: Id<Function>) -> Result<(), Mismatch> {
        let (from, to) = (&module.functions[self.from], &module.functions[self.to]);
        let giving = self.giving(from, to)?;
        let taking = self.taking(to)?;
        let calling = self.calling(&module.functions[caller], &giving, &taking)?;
        module.functions[self.from] = giving;
        module.functions[self.to] = taking;
        module.functions[caller] = calling;
        Ok(())
    }

    /// The function that the value comes from, with the collective.
    fn giving(&self, from: &Function, to: &Function) -> Result<Function, Mismatch> {
        let mut function = Rewriter::new(from).finish()?;
        let results = std::mem::take(&mut function.results);
        let mut b = Builder::extend(function);
        let taken = to.ty(to.params[self.operand]).tensor().cloned();
        let taken = taken.ok_or_else(|| Mismatch::new("only tensors travel"))?;
        let mut map = vec![None; to.nodes.len()];
        let mut x = b.reshape(results[self.result], &taken);
        map[to.params[self.operand].index()] = Some(x);
        for &id in &self.moved {
            b.place = to.nodes[id].place;
            if let Inst::Op(op) = &to.nodes[id].inst {
                let args: Vec<NodeId> = to.nodes[id].args.iter().filter_map(|a| map[a.index()]).collect();
                x = b.op(op.clone(), &args);
                map[id.index()] = Some(x);
            }
        }
        let mut function = b.finish()?;
        function.results = results;
        if self.replaced {
            function.results[self.result] = x;
        } else {
            function.results.push(x);
        }
        Ok(function)
    }

    /// The function that takes the result of the collective instead of the value.
    fn taking(&self, to: &Function) -> Result<Function, Mismatch> {
        let last = *self.moved.last().ok_or_else(|| Mismatch::new("nothing is moved"))?;
        let result = to.ty(last);
        let mut r = if self.replaced {
            Rewriter::with_param_types(to, |i, ty| if i == self.operand { result.clone() } else { ty.clone() })
        } else {
            Rewriter::new(to)
        };
        let new = if self.replaced { r.get(to.params[self.operand]) } else { r.b.param(result.clone()) };
        r.set(last, new);
        let mut live = vec![false; to.nodes.len()];
        to.results.iter().for_each(|result| live[result.index()] = true);
        for id in to.nodes.ids().rev().filter(|&id| id != last) {
            if live[id.index()] {
                to.nodes[id].args.iter().for_each(|a| live[a.index()] = true);
            }
        }
        for id in to.nodes.ids().filter(|id| live[id.index()]) {
            if !r.done(id) {
                r.copy(id);
            }
        }
        let results = to.results.iter().map(|&result| r.get(result)).collect();
        let mut function = r.b.finish()?;
        function.results = results;
        Ok(function)
    }

    fn calling(&self, caller: &Function, giving: &Function, taking: &Function) -> Result<Function, Mismatch> {
        let mut r = Rewriter::new(caller);
        let mut extra = None;
        let get = |r: &mut Rewriter<'_>, all: NodeId, i: usize| match r.b.function.ty(all).clone() {
            Type::Tuple(items) => items.get(i).map(|ty| r.b.push(Inst::Get(i), [all], ty.clone())),
            _ => Some(all),
        };
        let lost = || Mismatch::new("`get` past the end");
        for (id, node) in caller.nodes.iter() {
            r.b.place = node.place;
            match &node.inst {
                Inst::Call(call) if id == self.calls[0] => {
                    let args = r.args(id);
                    let mut all = r.b.call(call.clone(), giving, &args);
                    if !self.replaced {
                        extra = get(&mut r, all, giving.results.len() - 1);
                        if !matches!(node.ty, Type::Tuple(_)) {
                            all = get(&mut r, all, 0).ok_or_else(lost)?;
                        }
                    }
                    r.set(id, all);
                }
                Inst::Call(call) if id == self.calls[1] => {
                    let args: Vec<NodeId> = r.args(id).into_iter().chain(extra).collect();
                    let new = r.b.call(call.clone(), taking, &args);
                    r.set(id, new);
                }
                Inst::Get(i) => {
                    let all = r.get(node.args[0]);
                    let value = get(&mut r, all, *i).ok_or_else(lost)?;
                    r.set(id, value);
                }
                _ if !r.done(id) => {
                    r.copy(id);
                }
                _ => {}
            }
        }
        r.finish()
    }
}

/// The first collective that depends on `value` alone and gives no more than it, with all that it takes to compute it,
/// and the views that follow it.
fn alone(function: &Function, users: &[SmallVec<[NodeId; 4]>], value: NodeId) -> Option<Vec<NodeId>> {
    let (mut within, mut free) = (vec![false; function.nodes.len()], vec![false; function.nodes.len()]);
    within[value.index()] = true;
    let bytes = |id: NodeId| function.ty(id).tensor().map_or(usize::MAX, TensorType::bytes);
    let first = function.nodes.iter().find_map(|(id, node)| {
        let Inst::Op(op) = &node.inst else { return None };
        free[id.index()] = node.args.iter().all(|a| free[a.index()]);
        let settled = node.args.iter().all(|a| within[a.index()] || free[a.index()]);
        within[id.index()] = settled && !free[id.index()];
        (within[id.index()] && is_exchange(op) && bytes(id) <= bytes(value)).then_some(id)
    })?;
    let mut needed = vec![false; function.nodes.len()];
    needed[first.index()] = true;
    for (id, node) in function.nodes.iter().rev().filter(|(id, _)| *id != value) {
        if needed[id.index()] {
            node.args.iter().for_each(|a| needed[a.index()] = true);
        }
    }
    let mut all: Vec<NodeId> = function.nodes.ids().filter(|id| needed[id.index()] && *id != value).collect();
    let is_view = |id: NodeId| matches!(&function.nodes[id].inst, Inst::Op(op) if matches!(op.class(), Class::View | Class::Move));
    let mut last = first;
    while let &[next] = users[last.index()].as_slice()
        && is_view(next)
        && function.nodes[next].args.len() == 1
        && !function.results.contains(&last)
    {
        all.push(next);
        last = next;
    }
    Some(all)
}

/// Whether ranks exchange something.
fn is_exchange(op: &Op) -> bool {
    op.collective().is_some_and(|c| !matches!(c, Collective::Coordinate(_)))
}

/// How many collectives a function has.
pub fn collectives(function: &Function) -> usize {
    function.nodes.iter().filter(|(_, n)| matches!(&n.inst, Inst::Op(op) if is_exchange(op))).count()
}
