//! Means over counts from data: a count of 0 divides as infinity, so that a mean over nothing, and its gradients, are 0.
//!
//! A count is a sum over values that no gradient goes to, such as a mask or labels that are not ignored, or a function
//! of such sums that is 0 at 0. Wherever a quotient by it moves, behind a sum over micro-batches or ranks, nothing
//! divides by 0 there.

mod counts;

use std::collections::BTreeSet;

use ir::ops::{Compare, Comparison, Select};
use ir::{Builder, Function, Id, Inst, Mismatch, Module, NodeId, Op, Rewriter};

use self::counts::Quantity;
use crate::activity;

/// Makes all quotients by counts safe in a function and those that it calls; `wanted` marks the function's parameters
/// that have gradients.
pub fn guard(module: &mut Module, id: Id<Function>, wanted: &[bool]) -> Result<(), (Id<Function>, Mismatch)> {
    let mut found = BTreeSet::new();
    let params = vec![Quantity::Other; wanted.len()];
    find(module, id, wanted, &params, &mut found);
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
            let mut args = rewriter.args(id);
            rewriter.b.place = old.nodes[id].place;
            if let Some(last) = args.last_mut() {
                *last = match &old.nodes[id].inst {
                    Inst::Op(Op::Exp(_)) => exponent(&mut rewriter.b, *last),
                    _ => divisor(&mut rewriter.b, *last),
                };
            }
            rewriter.copy_over(id, args);
        } else {
            rewriter.copy(id);
        }
    }
    rewriter.finish()
}

/// `count`, or infinity where it is 0; a whole number has none, and is 1.
fn divisor(b: &mut Builder, count: NodeId) -> NodeId {
    let dtype = b.ty(count).dtype;
    let most = if dtype.is_float() { f64::INFINITY } else { 1.0 };
    let (zero, most) = (b.constant(0.0, dtype), b.constant(most, dtype));
    let none = b.op(Compare { kind: Comparison::Equal }, &[count, zero]);
    b.op(Select {}, &[none, most, count])
}

/// The exponent of a negative power of a count, where a count of 0 is as one without end.
fn exponent(b: &mut Builder, power: NodeId) -> NodeId {
    let dtype = b.ty(power).dtype;
    let (most, least) = (b.constant(f64::INFINITY, dtype), b.constant(f64::NEG_INFINITY, dtype));
    let none = b.op(Compare { kind: Comparison::Equal }, &[power, most]);
    b.op(Select {}, &[none, least, power])
}

/// Collects what divides by a count, as indices of functions and nodes.
fn find(module: &Module, id: Id<Function>, wanted: &[bool], params: &[Quantity], found: &mut BTreeSet<(usize, usize)>) {
    let function = &module.functions[id];
    let quantities = counts::of(module, function, params);
    let active = activity::values(module, function, wanted);
    let is_active = |node: NodeId| active[node.index()].iter().any(|a| *a);
    for (at, node) in function.nodes.iter() {
        let divides = match &node.inst {
            Inst::Op(Op::Div(_) | Op::Rsqrt(_)) => Quantity::Count,
            Inst::Op(Op::Exp(_)) => Quantity::NegativeLog,
            Inst::Call(call) => {
                let operands: Vec<bool> = node.args.iter().map(|&a| is_active(a)).collect();
                let inside = activity::through_call(module, call, &operands).0;
                let args: Vec<Quantity> = node.args.iter().map(|&a| counts::first(&quantities, a)).collect();
                find(module, call.callee, &inside, &counts::called(module, call, &args).0, found);
                continue;
            }
            _ => continue,
        };
        if node.args.last().is_some_and(|&by| counts::first(&quantities, by) == divides && !is_active(by)) {
            found.insert((id.index(), at.index()));
        }
    }
}
