//! An estimate of what GE allocates inside a segment, until the compiled file says what it is.

use crate::graph::{Node, Tensor};
use crate::table::Op;

/// GE aligns what it places.
const BLOCK: u64 = 512;

/// Constants, and the most that values between nodes hold at any one time when nodes run in order. Views are the bytes
/// of their operands; inputs and results lie outside.
pub fn estimate(nodes: &[Node], results: &[Tensor], live: &[bool]) -> u64 {
    let source = sources(nodes);
    let mut last = vec![0; nodes.len()];
    let mut outside = vec![false; nodes.len()];
    for (i, node) in nodes.iter().enumerate().filter(|(i, _)| live[*i]) {
        for input in node.inputs.iter().flatten() {
            last[source[input.node]] = i;
        }
        outside[i] = matches!(node.op, Op::Data | Op::Const);
    }
    for result in results {
        outside[source[result.node]] = true;
    }
    let bytes = |i: usize| -> u64 { nodes[i].outputs.iter().map(|ty| ty.bytes().next_multiple_of(BLOCK)).sum() };
    let held = |i: &usize| live[*i] && source[*i] == *i && !outside[*i];
    let mut ends: Vec<Vec<usize>> = vec![vec![]; nodes.len()];
    for i in (0..nodes.len()).filter(held) {
        ends[last[i].max(i)].push(i);
    }
    let (mut now, mut peak) = (0u64, 0u64);
    for (i, freed) in ends.iter().enumerate() {
        if held(&i) {
            now += bytes(i);
            peak = peak.max(now);
        }
        now -= freed.iter().map(|&f| bytes(f)).sum::<u64>();
    }
    let constants: u64 = (0..nodes.len()).filter(|&i| live[i] && nodes[i].op == Op::Const).map(bytes).sum();
    peak + constants
}

/// For each node, the node whose bytes it is.
fn sources(nodes: &[Node]) -> Vec<usize> {
    let mut source: Vec<usize> = (0..nodes.len()).collect();
    for (i, node) in nodes.iter().enumerate() {
        if let (Op::Reshape, Some(Some(from))) = (node.op, node.inputs.first()) {
            source[i] = source[from.node];
        }
    }
    source
}
