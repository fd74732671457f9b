//! The smallest reverse walk: gradients of a straight line of operators, without calls.

use std::collections::HashMap;

use ir::{Builder, Inst, NodeId, Type, Vjp};

/// What reaches each node of `wanted`, given what reaches the nodes of `seeds`; `None` where nothing does.
pub fn gradients(b: &mut Builder, seeds: &[(NodeId, NodeId)], wanted: &[NodeId]) -> Vec<Option<NodeId>> {
    // A cotangent for each result of each node.
    let mut reached: HashMap<(NodeId, usize), NodeId> = HashMap::new();
    for &(node, seed) in seeds {
        accumulate(b, &mut reached, (node, 0), seed);
    }
    let forward: Vec<NodeId> = b.function.nodes.ids().collect();
    for id in forward.into_iter().rev() {
        let node = b.node(id).clone();
        match &node.inst {
            Inst::Get(i) => {
                if let Some(&c) = reached.get(&(id, 0)) {
                    accumulate(b, &mut reached, (node.args[0], *i), c);
                }
            }
            Inst::Op(op) => {
                let count = if let Type::Tuple(items) = &node.ty { items.len() } else { 1 };
                let cotangents: Vec<_> = (0..count).map(|i| reached.get(&(id, i)).copied()).collect();
                if cotangents.iter().all(Option::is_none) {
                    continue;
                }
                let results = b.results(id);
                let wanted = vec![true; node.args.len()];
                let mut cx = Vjp { b, args: &node.args, results: &results, cotangents: &cotangents, wanted: &wanted };
                let found = op.vjp(&mut cx);
                assert_eq!(found.len(), node.args.len(), "`{}` has one gradient for each operand", op.name());
                for (&arg, gradient) in node.args.iter().zip(found) {
                    if let Some(gradient) = gradient {
                        assert_eq!(b.ty(gradient), b.ty(arg), "a gradient of `{}` has its operand's type", op.name());
                        accumulate(b, &mut reached, (arg, 0), gradient);
                    }
                }
            }
            _ => {}
        }
    }
    wanted.iter().map(|&id| reached.get(&(id, 0)).copied()).collect()
}

fn accumulate(b: &mut Builder, reached: &mut HashMap<(NodeId, usize), NodeId>, at: (NodeId, usize), more: NodeId) {
    let sum = match reached.get(&at) {
        Some(&sum) => b.add(sum, more),
        None => more,
    };
    reached.insert(at, sum);
}
