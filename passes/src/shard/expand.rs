//! Operators that want a dim whole which hints cut are replaced by their expansions, whose reductions can be cut.

use std::collections::{HashMap, HashSet};

use ir::{FactorKind, Function, Id, Inst, Module, NodeId, Rewriter};

use super::assignment::AxisAssignment;

/// Expands what stands in the way; whether anything did.
pub fn blocked(module: &mut Module, table: &AxisAssignment) -> bool {
    let mut changed = false;
    let ids: Vec<_> = module.functions.ids().collect();
    for id in ids {
        let function = &module.functions[id];
        let nodes: HashSet<NodeId> = function.nodes.ids().filter(|&n| is_blocked(table, id, function, n)).collect();
        if !nodes.is_empty()
            && let Some(expanded) = expand(function, &nodes)
        {
            module.functions[id] = expanded;
            changed = true;
        }
    }
    changed
}

fn is_blocked(table: &AxisAssignment, f: Id<Function>, function: &Function, id: NodeId) -> bool {
    let Some(factors) = &table.factors[f.index()][id.index()] else { return false };
    let node = &function.nodes[id];
    let cut_whole = |dims: &Vec<smallvec::SmallVec<[usize; 2]>>, axes: &super::assignment::TensorAxes| {
        dims.iter()
            .zip(axes)
            .any(|(of, axes)| !axes.is_empty() && of.iter().any(|&x| factors.factors[x].kind == FactorKind::Whole))
    };
    let args = factors.args.iter().zip(&node.args).any(|(dims, a)| cut_whole(dims, table.at((f, *a, 0))));
    args || factors
        .results
        .iter()
        .zip(&table.functions[f.index()][id.index()])
        .any(|(dims, axes)| cut_whole(dims, axes))
}

/// `None` if none of the nodes has an expansion.
fn expand(function: &Function, nodes: &HashSet<NodeId>) -> Option<Function> {
    let mut r = Rewriter::new(function);
    let mut results: HashMap<NodeId, ir::NodeIds> = HashMap::new();
    for (id, node) in function.nodes.iter() {
        if r.done(id) {
            continue;
        }
        r.b.place = node.place;
        match &node.inst {
            Inst::Op(op) if nodes.contains(&id) => {
                let args = r.args(id);
                match op.expand(&mut r.b, &args) {
                    Some(values) => {
                        r.set(id, values[0]);
                        results.insert(id, values);
                    }
                    None => {
                        r.copy(id);
                    }
                }
            }
            Inst::Get(i) if results.contains_key(&node.args[0]) => {
                let value = results[&node.args[0]][*i];
                r.set(id, value);
            }
            _ => {
                r.copy(id);
            }
        }
    }
    let changed = !results.is_empty();
    r.finish().ok().filter(|_| changed)
}
