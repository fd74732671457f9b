//! A copy, for each use of it, of what is one number everywhere, such as the zeros that sums start from: users that share
//! nothing else then bind each other in nothing. Equal copies become one again in `simplify`.

use std::collections::BTreeSet;

use diag::Diagnostics;
use ir::{Class, Function, Inst, Mismatch, Module, NodeId, Rewriter};

use crate::diagnostics;

pub fn by_use(module: &mut Module) -> Result<(), Diagnostics> {
    for id in module.functions.ids().collect::<Vec<_>>() {
        let function = &module.functions[id];
        let fills = fills(function);
        if shared(function, &fills) {
            module.functions[id] = copied(function, &fills).map_err(|m| diagnostics::unfit("shard", function, &m))?;
        }
    }
    Ok(())
}

/// By node: whether it is one number everywhere.
fn fills(function: &Function) -> Vec<bool> {
    let mut fills: Vec<bool> = Vec::with_capacity(function.nodes.len());
    for (_, node) in function.nodes.iter() {
        let of_fills = !node.args.is_empty() && node.args.iter().all(|arg| fills[arg.index()]);
        fills.push(match &node.inst {
            Inst::Op(op) if op.class() == Class::Source => node.ty.tensor().is_some_and(|ty| ty.rank() == 0),
            Inst::Op(op) => of_fills && matches!(op.class(), Class::View | Class::Move | Class::Elementwise),
            Inst::Repeat { .. } | Inst::Chunk { .. } => of_fills,
            _ => false,
        });
    }
    fills
}

/// Whether any of them has several users.
fn shared(function: &Function, fills: &[bool]) -> bool {
    let mut used = vec![false; function.nodes.len()];
    let mut args = function.nodes.iter().filter(|(id, _)| !fills[id.index()]).flat_map(|(_, node)| &node.args);
    args.any(|arg| fills[arg.index()] && std::mem::replace(&mut used[arg.index()], true))
}

fn copied(function: &Function, fills: &[bool]) -> Result<Function, Mismatch> {
    let mut r = Rewriter::new(function);
    let live = function.live();
    for (id, node) in function.nodes.iter().filter(|(id, _)| live[id.index()] && !fills[id.index()]) {
        if !r.done(id) {
            let args = node.args.iter().map(|arg| if fills[arg.index()] { copy(&mut r, *arg) } else { r.get(*arg) });
            let args = args.collect();
            r.copy_over(id, args);
        }
    }
    r.finish()
}

/// Anew, whether there is a copy already or not; what several of its operands read is one in the copy too.
fn copy(r: &mut Rewriter<'_>, id: NodeId) -> NodeId {
    let from = r.from;
    let (mut all, mut left) = (BTreeSet::new(), vec![id]);
    while let Some(id) = left.pop() {
        if all.insert(id) {
            left.extend(&from.nodes[id].args);
        }
    }
    // Operands come before what reads them.
    for &id in &all {
        r.copy(id);
    }
    r.get(id)
}
