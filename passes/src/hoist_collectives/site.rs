//! A repeated call, its callee, and what becomes of both when values are computed outside instead of inside.

use ir::{Builder, Call, Function, Inst, Mismatch, Module, NodeId, Op, Rewriter, Type};

/// By function: how many calls it has, a program's run as one more than any.
pub struct Calls(Vec<usize>);

impl Calls {
    /// What concerns a caller; nothing that it would not ask about is counted.
    pub fn of(module: &Module, caller: &Function) -> Self {
        if !caller.nodes.iter().any(|(_, node)| matches!(node.inst, Inst::Call(_))) {
            return Self(vec![]);
        }
        let mut calls = vec![0; module.functions.len()];
        for (_, node) in module.functions.iter().flat_map(|(_, f)| f.nodes.iter()) {
            if let Inst::Call(call) = &node.inst {
                calls[call.callee.index()] += 1;
            }
        }
        module.programs.iter().for_each(|program| calls[program.function.index()] += 2);
        Self(calls)
    }

    /// The call, if it is the only one of its callee.
    pub fn only<'a>(&self, inst: &'a Inst) -> Option<&'a Call> {
        let Inst::Call(call) = inst else { return None };
        (self.0.get(call.callee.index()) == Some(&1)).then_some(call)
    }

    /// The repeated calls of a function whose callees nobody else calls.
    pub fn repeated(&self, caller: &Function) -> Vec<(NodeId, Call)> {
        let calls = caller.nodes.iter().filter_map(|(id, node)| Some((id, self.only(&node.inst)?)));
        let calls = calls.filter(|(_, call)| call.times.is_some_and(|times| times > 1));
        calls.map(|(id, call)| (id, call.clone())).collect()
    }
}

pub fn op(function: &Function, id: NodeId) -> Option<&Op> {
    if let Inst::Op(op) = &function.nodes[id].inst { Some(op) } else { None }
}

/// `value` as the `index`-th result of the call or operator `all`.
pub fn result(b: &mut Builder, all: NodeId, index: usize) -> NodeId {
    match b.function.ty(all).clone() {
        Type::Tuple(items) => match items.get(index) {
            Some(ty) => b.push(Inst::Get(index), [all], ty.clone()),
            None => {
                b.fail(Mismatch::new("`get` past the end"));
                all
            }
        },
        _ => all,
    }
}

/// Copies a node whose operands may have got other types.
pub fn copy(r: &mut Rewriter<'_>, module: &Module, id: NodeId) {
    let node = &r.from.nodes[id];
    r.b.place = node.place;
    let new = match &node.inst {
        Inst::Call(call) => {
            let args = r.args(id);
            r.b.call(call.clone(), &module.functions[call.callee], &args)
        }
        Inst::Get(i) => {
            let all = r.get(node.args[0]);
            result(&mut r.b, all, *i)
        }
        _ => r.copy(id),
    };
    r.set(id, new);
}

/// The new function with the old one's results, without what nobody reads.
pub fn finish(r: Rewriter<'_>) -> Result<Function, Mismatch> {
    let results = r.from.results.iter().map(|&old| r.get(old)).collect();
    let mut function = r.b.finish()?;
    function.results = results;
    Rewriter::new(&function).finish()
}

/// `f` of a tensor, or of each tensor of a stack by a function of that name.
pub fn each(
    module: &mut Module,
    b: &mut Builder,
    name: &str,
    x: NodeId,
    f: impl Fn(&mut Builder, NodeId) -> NodeId,
) -> Result<NodeId, Mismatch> {
    let Type::Stack { count, of } = b.function.ty(x).clone() else { return Ok(f(b, x)) };
    let mut one = Builder::new(module.fresh_name(name));
    one.place = b.place;
    let element = one.param(of);
    let y = f(&mut one, element);
    let mut callee = one.finish()?;
    callee.results.push(y);
    let call = Call { callee: module.functions.add(callee), times: Some(count), carried: 0, shared: 0, reverse: false };
    let all = b.call(call.clone(), &module.functions[call.callee], &[x]);
    Ok(all)
}
