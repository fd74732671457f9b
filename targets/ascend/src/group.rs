//! How a function falls into segments: everything between two collectives is one.
//!
//! An operator's level is the number of collectives and calls that must come before it. Operators of one level are a
//! segment: levels never fall along a path and rise across a collective, so a segment is convex, and no longer one is.

use ir::{Class, Function, Inst, NodeId};

pub fn group(function: &Function) -> Vec<Vec<NodeId>> {
    let live = function.live();
    let levels = levels(function);
    let mut groups: Vec<Vec<NodeId>> = vec![];
    let mut of = vec![usize::MAX; function.nodes.len()];
    for (id, node) in function.nodes.iter().filter(|(id, _)| live[id.index()]) {
        let level = levels[id.index()];
        let inside = |arg: &NodeId| of[arg.index()] == level;
        let member = match &node.inst {
            Inst::Op(op) => match op.class() {
                Class::Source | Class::Collective => false,
                // A view of what is outside is another name for it, outside as well.
                Class::View => node.args.iter().all(inside),
                _ => true,
            },
            Inst::Get(_) => node.args.iter().all(inside),
            _ => false,
        };
        if member {
            if groups.len() <= level {
                groups.resize(level + 1, vec![]);
            }
            groups[level].push(id);
            of[id.index()] = level;
        }
    }
    groups.retain(|g| !g.is_empty());
    groups
}

fn levels(function: &Function) -> Vec<usize> {
    // What comes out of these is there only after them.
    let mut barrier = vec![false; function.nodes.len()];
    let mut levels = vec![0; function.nodes.len()];
    // Casts of parameters, and views of them: better made where they are read than kept.
    let mut light = vec![false; function.nodes.len()];
    for (id, node) in function.nodes.iter() {
        let i = id.index();
        let after = node.args.iter().map(|a| levels[a.index()] + usize::from(barrier[a.index()]));
        levels[i] = after.max().unwrap_or(0);
        let from_parameters = node.args.iter().all(|a| light[a.index()]);
        (barrier[i], light[i]) = match &node.inst {
            Inst::Param(_) => (false, true),
            Inst::Get(_) => (barrier[node.args[0].index()], false),
            Inst::Op(op) => {
                let collective = op.class() == Class::Collective && !node.args.is_empty();
                let cast = op.class() == Class::View || matches!(op, ir::Op::Cast(_));
                (collective, cast && from_parameters)
            }
            _ => (true, false),
        };
    }
    let users = function.users();
    for (id, node) in function.nodes.iter().rev() {
        let i = id.index();
        if light[i] && !matches!(node.inst, Inst::Param(_)) && !function.results.contains(&id) {
            let first = users[i].iter().map(|u| levels[u.index()]).min();
            levels[i] = first.unwrap_or(levels[i]);
        }
    }
    levels
}
