//! Activity: which values depend on an operand that a gradient is wanted for.

use ir::{Call, Function, Inst, Module, Type};
use smallvec::{SmallVec, smallvec};

/// For each node of `function` and each of its results, whether it depends on a parameter marked in `params` through
/// floating-point values alone.
pub fn values(module: &Module, function: &Function, params: &[bool]) -> Vec<SmallVec<[bool; 1]>> {
    let mut active: Vec<SmallVec<[bool; 1]>> = vec![SmallVec::new(); function.nodes.len()];
    for (id, node) in function.nodes.iter() {
        let arg = |i: usize| active[node.args[i].index()].iter().any(|a| *a);
        let here = match &node.inst {
            Inst::Param(i) => smallvec![params[*i] && is_float(&node.ty)],
            Inst::Get(i) => smallvec![active[node.args[0].index()][*i]],
            Inst::Call(call) => {
                let operands: Vec<bool> = (0..node.args.len()).map(arg).collect();
                through_call(module, call, &operands).1.into()
            }
            _ => {
                let any = (0..node.args.len()).any(arg);
                node.ty.items().iter().map(|ty| any && is_float(ty)).collect()
            }
        };
        active[id.index()] = here;
    }
    active
}

/// Which operands of a call count as active, carried values of later turns included, and which results are.
pub fn through_call(module: &Module, call: &Call, operands: &[bool]) -> (Vec<bool>, Vec<bool>) {
    let callee = &module.functions[call.callee];
    let mut operands = operands.to_vec();
    loop {
        let inside = values(module, callee, &operands);
        let results: Vec<bool> = callee.results.iter().map(|r| inside[r.index()].iter().any(|a| *a)).collect();
        let carried = if call.times.is_some() { call.carried } else { 0 };
        let next = (0..carried).find(|&i| results[i] && !operands[i]);
        match next {
            Some(i) => operands[i] = true,
            // What is carried may be its own start (no turns at all), so an active start stays active.
            None => {
                let results = results.iter().enumerate().map(|(i, r)| *r || (i < carried && operands[i])).collect();
                return (operands, results);
            }
        }
    }
}

/// The types of all results of a node.
pub fn is_float(ty: &Type) -> bool {
    ty.element().is_some_and(|t| t.dtype.is_float())
}
