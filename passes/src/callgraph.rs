//! The functions that programs reach, in an order in which callees come before their callers.

use std::collections::BTreeSet;

use ir::{Arena, Function, Id, Inst, Module};

/// Drops functions that no program reaches and restores the order that the verifier asks for. Returns how many went.
///
/// Passes add functions at the end and replace others where they stand; this puts things right afterwards. Of the
/// functions whose callees are all placed, the one that stood first goes first, so an ordered module stays as it is.
pub fn sweep(module: &mut Module) -> usize {
    let reached = reached(module);
    let mut waiting: Vec<BTreeSet<Id<Function>>> = module.functions.iter().map(|(_, f)| callees(f)).collect();
    let mut callers: Vec<Vec<usize>> = vec![vec![]; module.functions.len()];
    for (f, callees) in waiting.iter().enumerate() {
        for callee in callees {
            callers[callee.index()].push(f);
        }
    }
    let mut ready: BTreeSet<usize> =
        (0..module.functions.len()).filter(|&f| reached[f] && waiting[f].is_empty()).collect();
    let mut place: Vec<Option<Id<Function>>> = vec![None; module.functions.len()];
    let mut functions = Arena::default();
    while let Some(f) = ready.pop_first() {
        place[f] = Some(functions.add(std::mem::take(&mut module.functions[Id::new(f)])));
        for &caller in &callers[f] {
            waiting[caller].remove(&Id::new(f));
            if reached[caller] && waiting[caller].is_empty() {
                ready.insert(caller);
            }
        }
    }
    let dropped = module.functions.len() - functions.len();
    let moved = |id: Id<Function>| place[id.index()].unwrap_or(id);
    for (_, function) in functions.iter_mut() {
        for (_, node) in function.nodes.iter_mut() {
            if let Inst::Call(call) = &mut node.inst {
                call.callee = moved(call.callee);
            }
        }
    }
    for program in &mut module.programs {
        program.function = moved(program.function);
    }
    module.functions = functions;
    dropped
}

fn callees(function: &Function) -> BTreeSet<Id<Function>> {
    let callee = |node: &ir::Node| match &node.inst {
        Inst::Call(call) => Some(call.callee),
        _ => None,
    };
    function.nodes.iter().filter_map(|(_, node)| callee(node)).collect()
}

/// A module without programs is a library: all of it counts.
fn reached(module: &Module) -> Vec<bool> {
    let mut reached = vec![module.programs.is_empty(); module.functions.len()];
    let mut todo: Vec<Id<Function>> = module.programs.iter().map(|p| p.function).collect();
    while let Some(f) = todo.pop() {
        if !std::mem::replace(&mut reached[f.index()], true) {
            todo.extend(callees(&module.functions[f]));
        }
    }
    reached
}
