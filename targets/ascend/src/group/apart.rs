//! What of a level is a segment of its own, because it waits for other pieces of an exchange than the rest or leads to others.

use std::collections::{BTreeMap, BTreeSet};

use ir::{Class, Function, Inst, Node, NodeId};

use super::{WORTH, flops};

/// Pieces of exchanges, in node order.
type Set = BTreeSet<NodeId>;

/// By node: a number that is the same for all of a level that stays together.
///
/// Along a path inside a level, pieces that came before only become more and those that follow only fewer, so what has the
/// same of both is convex, and no two such sets depend on each other in a circle. It is done where two of them have large
/// products.
pub fn of(function: &Function, live: &[bool], levels: &[usize]) -> Vec<usize> {
    let pieces = pieces(function, live, levels);
    let both = after(function, levels, &pieces).into_iter().zip(before(function, levels, &pieces));
    let kinds: Vec<(usize, Set, Set)> =
        both.enumerate().map(|(i, (after, before))| (levels[i], after, before)).collect();
    let products = |(id, node): (NodeId, &Node)| match &node.inst {
        Inst::Op(op) if op.class() == Class::Contract && live[id.index()] => flops(function, node),
        _ => 0,
    };
    let mut work: BTreeMap<&(usize, Set, Set), u64> = BTreeMap::new();
    let mut largest = 0;
    for (id, node) in function.nodes.iter() {
        let flops = products((id, node));
        largest = flops.max(largest);
        *work.entry(&kinds[id.index()]).or_default() += flops;
    }
    let mut worth = vec![0; levels.iter().max().map_or(0, |last| last + 1)];
    for (kind, flops) in &work {
        worth[kind.0] += usize::from(flops * WORTH > largest);
    }
    let numbers: BTreeMap<&(usize, Set, Set), usize> = work.keys().enumerate().map(|(n, kind)| (*kind, n)).collect();
    kinds.iter().map(|kind| if worth[kind.0] > 1 { numbers[kind] } else { 0 }).collect()
}

/// By node: whether it is one of several exchanges that are the same and stand at the same place of the model.
fn pieces(function: &Function, live: &[bool], levels: &[usize]) -> Vec<bool> {
    let asks = |(id, node): &(NodeId, &Node)| {
        live[id.index()] && matches!(&node.inst, Inst::Op(op) if op.class() == Class::Collective)
    };
    let mut at: BTreeMap<_, Vec<(NodeId, &Node)>> = BTreeMap::new();
    for (id, node) in function.nodes.iter().filter(asks) {
        at.entry((node.place, levels[id.index()])).or_default().push((id, node));
    }
    let mut pieces = vec![false; function.nodes.len()];
    for (a, b) in at.values().flat_map(|alike| alike.iter().zip(alike.iter().skip(1))) {
        if a.1.inst == b.1.inst && a.1.ty == b.1.ty {
            (pieces[a.0.index()], pieces[b.0.index()]) = (true, true);
        }
    }
    pieces
}

/// By node: the pieces that its level waits for and it follows from.
fn after(function: &Function, levels: &[usize], pieces: &[bool]) -> Vec<Set> {
    let mut after: Vec<Set> = vec![];
    for (id, node) in function.nodes.iter() {
        let mut own = Set::new();
        for arg in &node.args {
            let (from, to) = (levels[arg.index()], levels[id.index()]);
            if pieces[arg.index()] && from + 1 == to {
                own.insert(*arg);
            } else if from == to {
                own.extend(&after[arg.index()]);
            }
        }
        after.push(own);
    }
    after
}

/// By node: the pieces of its level that it leads to.
fn before(function: &Function, levels: &[usize], pieces: &[bool]) -> Vec<Set> {
    let mut before = vec![Set::new(); function.nodes.len()];
    for (id, node) in function.nodes.iter().rev() {
        for arg in node.args.iter().filter(|arg| levels[arg.index()] == levels[id.index()]) {
            let own = if pieces[id.index()] { Set::from([id]) } else { before[id.index()].clone() };
            before[arg.index()].extend(own);
        }
    }
    before
}
