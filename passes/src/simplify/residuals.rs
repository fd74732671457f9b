//! Residuals are kept as the backward uses them: an exchange between ranks with which a function would begin moves to
//! the function that the value comes from, where the exchanged value is often at hand.

use ir::{Builder, Call, Class, Collective, Function, Id, Inst, Mismatch, Module, NodeId, Op, Rewriter, Type};
use smallvec::SmallVec;

/// A value that one call hands to another, which exchanges it.
pub struct Handover {
    pub from: Id<Function>,
    pub to: Id<Function>,
    /// The nodes of the two calls.
    calls: [NodeId; 2],
    /// Which result of the one is which operand of the other.
    result: usize,
    operand: usize,
    /// The exchange and the views around it, in `to`.
    exchange: Vec<NodeId>,
    /// Whether nobody wants the value as it is handed over now.
    replaced: bool,
}

impl Handover {
    /// All within `caller`, between functions that are called nowhere else.
    pub fn all(module: &Module, caller: Id<Function>) -> Vec<Self> {
        let function = &module.functions[caller];
        let users = function.users();
        let mut out = vec![];
        for (at, node) in function.nodes.iter() {
            let Some(to) = only_call(module, &node.inst) else { continue };
            for (operand, &value) in node.args.iter().enumerate() {
                let (source, result) = match function.nodes[value].inst {
                    Inst::Get(i) => (function.nodes[value].args[0], i),
                    _ => (value, 0),
                };
                let Some(from) = only_call(module, &function.nodes[source].inst) else { continue };
                let stacked = result >= from.carried && to.is_stacked(operand) && from.times == to.times;
                let plain = from.times.is_none() && to.times.is_none();
                if !(stacked || plain) {
                    continue;
                }
                let callee = &module.functions[to.callee];
                let param = callee.params[operand];
                let reads = callee.users();
                let Some(exchange) = exchange(callee, &reads, param, false) else { continue };
                let asked = |users: &[NodeId], results: &[NodeId], id| {
                    users.len() + results.iter().filter(|&&r| r == id).count()
                };
                let within = std::iter::once(&param).chain(&exchange[..exchange.len() - 1]);
                let replaced = asked(&users[value.index()], &function.results, value) == 1
                    && within.copied().all(|id| asked(&reads[id.index()], &callee.results, id) == 1);
                let (from, to, calls) = (from.callee, to.callee, [source, at]);
                out.push(Self { from, to, calls, result, operand, exchange, replaced });
            }
        }
        out
    }

    /// Moves the exchange from one function to the other.
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

    /// The function that the value comes from, which exchanges it.
    fn giving(&self, from: &Function, to: &Function) -> Result<Function, Mismatch> {
        let mut function = Rewriter::new(from).finish()?;
        let results = std::mem::take(&mut function.results);
        let mut b = Builder::extend(function);
        let taken = to.ty(to.params[self.operand]).tensor().cloned();
        let taken = taken.ok_or_else(|| Mismatch::new("only tensors are exchanged"))?;
        let mut x = b.reshape(results[self.result], &taken);
        for &id in &self.exchange {
            b.place = to.nodes[id].place;
            if let Inst::Op(op) = &to.nodes[id].inst {
                x = b.op(op.clone(), &[x]);
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

    /// The function that finds the value exchanged.
    fn taking(&self, to: &Function) -> Result<Function, Mismatch> {
        let last = *self.exchange.last().ok_or_else(|| Mismatch::new("an exchange is at least one operator"))?;
        let exchanged = to.ty(last);
        let mut r = if self.replaced {
            Rewriter::with_param_types(to, |i, ty| if i == self.operand { exchanged.clone() } else { ty.clone() })
        } else {
            Rewriter::new(to)
        };
        let new = if self.replaced { r.get(to.params[self.operand]) } else { r.b.param(exchanged.clone()) };
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

/// The call, if it is the only one of its callee.
fn only_call<'a>(module: &Module, inst: &'a Inst) -> Option<&'a Call> {
    let Inst::Call(call) = inst else { return None };
    let nodes = module.functions.iter().flat_map(|(_, f)| f.nodes.iter());
    let calls = nodes.filter(|(_, n)| matches!(&n.inst, Inst::Call(c) if c.callee == call.callee)).count();
    let run = module.programs.iter().any(|p| p.function == call.callee);
    (calls == 1 && !run).then_some(call)
}

/// The operators of one operand that follow `value` up to an exchange, and the views after it.
fn exchange(function: &Function, users: &[SmallVec<[NodeId; 4]>], value: NodeId, done: bool) -> Option<Vec<NodeId>> {
    let next = |user: &&NodeId| function.nodes[**user].args.as_slice() == [value];
    let op = |id: NodeId| if let Inst::Op(op) = &function.nodes[id].inst { Some(op) } else { None };
    let is_view = |id: NodeId| op(id).is_some_and(|op| matches!(op.class(), Class::View | Class::Move));
    let is_exchange =
        |id: NodeId| op(id).and_then(Op::collective).is_some_and(|c| matches!(c, Collective::AllToAll { .. }));
    let after = |id: NodeId, done| exchange(function, users, id, done).map(|rest| [&[id], rest.as_slice()].concat());
    let of = users[value.index()].iter().filter(next);
    if done {
        let single = users[value.index()].len() == 1 && !function.results.contains(&value);
        let further = of.copied().find(|&id| single && is_view(id)).and_then(|id| after(id, true));
        return Some(further.unwrap_or_default());
    }
    of.copied().find_map(|id| {
        if is_exchange(id) {
            after(id, true)
        } else if is_view(id) {
            after(id, false)
        } else {
            None
        }
    })
}

/// How many collectives a function has.
pub fn collectives(function: &Function) -> usize {
    let is_collective = |inst: &Inst| match inst {
        Inst::Op(op) => op.collective().is_some_and(|c| !matches!(c, Collective::Coordinate(_))),
        _ => false,
    };
    function.nodes.iter().filter(|(_, n)| is_collective(&n.inst)).count()
}
