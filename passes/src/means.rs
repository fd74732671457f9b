//! Means over counts from data: a count of 0 divides as 1, so that a mean over nothing, and its gradients, are 0.
//!
//! A count is a sum over values that no gradient goes to, such as a mask or labels that are not ignored. Wherever a
//! quotient by it moves, behind a sum over micro-batches or ranks, nothing divides by 0 there.

use std::collections::BTreeSet;

use ir::ops::{Compare, Comparison, Select};
use ir::{Builder, Call, Function, Id, Inst, Mismatch, Module, NodeId, Op, Rewriter};
use smallvec::{SmallVec, smallvec};

use crate::autodiff::activity;

/// `count`, or 1 where it is 0.
pub fn divisor(b: &mut Builder, count: NodeId) -> NodeId {
    let dtype = b.ty(count).dtype;
    let (zero, one) = (b.constant(0.0, dtype), b.constant(1.0, dtype));
    let none = b.op(Compare { kind: Comparison::Equal }, &[count, zero]);
    b.op(Select {}, &[none, one, count])
}

/// The count that `divisor` was made of, if it was made so.
pub fn count(function: &Function, divisor: NodeId) -> NodeId {
    let constant = |at: NodeId, value: f64| match &function.nodes[at].inst {
        Inst::Op(Op::Constant(c)) => c.value == value,
        _ => false,
    };
    let node = &function.nodes[divisor];
    if let (Inst::Op(Op::Select(_)), &[none, one, count]) = (&node.inst, node.args.as_slice())
        && constant(one, 1.0)
        && let Inst::Op(Op::Compare(Compare { kind: Comparison::Equal })) = &function.nodes[none].inst
        && let &[of, zero] = function.nodes[none].args.as_slice()
        && of == count
        && constant(zero, 0.0)
    {
        return count;
    }
    divisor
}

/// Makes all quotients by counts safe in a function and those that it calls; `wanted` marks the function's parameters
/// that have gradients.
pub fn guard(module: &mut Module, id: Id<Function>, wanted: &[bool]) -> Result<(), (Id<Function>, Mismatch)> {
    let mut found = BTreeSet::new();
    find(module, id, wanted, &mut found);
    let functions: Vec<Id<Function>> = module.functions.ids().collect();
    for at in functions.into_iter().filter(|f| found.iter().any(|(of, _)| *of == f.index())) {
        let old = module.functions[at].clone();
        let new = rewritten(&old, |node| found.contains(&(at.index(), node.index()))).map_err(|m| (at, m))?;
        module.functions[at] = new;
    }
    Ok(())
}

fn rewritten(old: &Function, divides: impl Fn(NodeId) -> bool) -> Result<Function, Mismatch> {
    let mut rewriter = Rewriter::new(old);
    let live = old.live();
    for id in old.nodes.ids().filter(|id| live[id.index()]) {
        if rewriter.done(id) {
            continue;
        }
        if divides(id) {
            let args = rewriter.args(id);
            rewriter.b.place = old.nodes[id].place;
            let safe = divisor(&mut rewriter.b, args[1]);
            rewriter.copy_over(id, vec![args[0], safe]);
        } else {
            rewriter.copy(id);
        }
    }
    rewriter.finish()
}

/// Collects the quotients, as indices of functions and nodes.
fn find(module: &Module, id: Id<Function>, wanted: &[bool], found: &mut BTreeSet<(usize, usize)>) {
    let function = &module.functions[id];
    let sums = sums(module, function, 0);
    let active = activity::values(module, function, wanted);
    let is_active = |node: NodeId| active[node.index()].iter().any(|a| *a);
    for (at, node) in function.nodes.iter() {
        match &node.inst {
            Inst::Op(Op::Div(_)) if sums[node.args[1].index()][..] == [Sum::Data] && !is_active(node.args[1]) => {
                found.insert((id.index(), at.index()));
            }
            Inst::Call(call) => {
                let operands: Vec<bool> = node.args.iter().map(|&a| is_active(a)).collect();
                let inside = activity::through_call(module, call, &operands).0;
                find(module, call.callee, &inside, found);
            }
            _ => {}
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sum {
    /// Over values that are not known when it is compiled.
    Data,
    /// A constant, or what earlier turns carry.
    Start,
    None,
}

/// For each node and each of its results, whether it is a sum, as far as the operators that made it tell. The first
/// `carried` parameters are sums so far.
fn sums(module: &Module, function: &Function, carried: usize) -> Vec<SmallVec<[Sum; 1]>> {
    let mut sums: Vec<SmallVec<[Sum; 1]>> = vec![SmallVec::new(); function.nodes.len()];
    let mut varies = vec![false; function.nodes.len()];
    for (id, node) in function.nodes.iter() {
        varies[id.index()] = matches!(node.inst, Inst::Param(_)) || node.args.iter().any(|a| varies[a.index()]);
        let of = |i: usize| sums[node.args[i].index()].first().copied().unwrap_or(Sum::None);
        let one = match &node.inst {
            Inst::Param(i) if *i < carried => Sum::Start,
            Inst::Get(i) => sums[node.args[0].index()].get(*i).copied().unwrap_or(Sum::None),
            Inst::Call(call) => {
                let operands: Vec<Sum> = (0..node.args.len()).map(of).collect();
                sums[id.index()] = called(module, call, &operands);
                continue;
            }
            Inst::Op(Op::Constant(_)) => Sum::Start,
            Inst::Op(Op::ReduceSum(_)) if varies[node.args[0].index()] => Sum::Data,
            Inst::Op(Op::Cast(_) | Op::Reshape(_) | Op::Transpose(_) | Op::Broadcast(_)) => of(0),
            Inst::Op(Op::Add(_)) => together(of(0), of(1)),
            _ => Sum::None,
        };
        sums[id.index()] = smallvec![one];
    }
    sums
}

/// The same of a call's results; stacks are no sums.
fn called(module: &Module, call: &Call, operands: &[Sum]) -> SmallVec<[Sum; 1]> {
    let callee = &module.functions[call.callee];
    let carried = if call.times.is_some() { call.carried } else { 0 };
    let inside = sums(module, callee, carried);
    let result = |(i, r): (usize, &NodeId)| match inside[r.index()].first() {
        Some(own) if i < carried => together(*own, operands[i]),
        Some(own) if call.times.is_none() => *own,
        _ => Sum::None,
    };
    callee.results.iter().enumerate().map(result).collect()
}

fn together(a: Sum, b: Sum) -> Sum {
    match (a, b) {
        (Sum::None, _) | (_, Sum::None) => Sum::None,
        (Sum::Start, Sum::Start) => Sum::Start,
        _ => Sum::Data,
    }
}
