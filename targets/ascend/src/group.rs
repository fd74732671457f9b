//! How a function falls into segments: everything between two collectives is one.
//!
//! An operator's level is the number of collectives and calls that must come before it. Operators of one level are a
//! segment: levels never fall along a path and rise across a collective, so a segment is convex, and no longer one is.
//!
//! Where a level has products that neither lead to one of its collectives nor to other products, such as gradients of weights
//! beside the sum of an activation's gradient, they are a second segment: it can be done while that sum travels. Where its
//! products wait for different pieces of one exchange, or lead to them, there is a segment for each.

mod apart;

use std::collections::BTreeMap;

use ir::{Class, Function, Inst, NodeId};

/// What stands for itself is more than this part of the function's largest.
const WORTH: u64 = 16;

pub fn group(function: &Function) -> Vec<Vec<NodeId>> {
    let live = function.live();
    let levels = levels(function);
    let later = later(function, &live, &levels);
    let apart = apart::of(function, &live, &levels);
    let mut groups: BTreeMap<_, Vec<NodeId>> = BTreeMap::new();
    let mut of = vec![None; function.nodes.len()];
    for (id, node) in function.nodes.iter().filter(|(id, _)| live[id.index()]) {
        // An item is where its tuple is.
        let of_whole = if let (Inst::Get(_), [of]) = (&node.inst, &node.args[..]) { *of } else { id };
        let segment = (levels[id.index()], later[of_whole.index()], apart[of_whole.index()]);
        let inside = |arg: &NodeId| of[arg.index()] == Some(segment);
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
            groups.entry(segment).or_default().push(id);
            of[id.index()] = Some(segment);
        }
    }
    groups.into_values().collect()
}

fn flops(function: &Function, node: &ir::Node) -> u64 {
    let Inst::Op(op) = &node.inst else { return 0 };
    let args: Vec<_> = node.args.iter().filter_map(|arg| function.ty(*arg).tensor()).collect();
    op.flops(&args, node.ty.tensor().map_or(&[], std::slice::from_ref))
}

/// By node: whether it is in the second segment of its level.
fn later(function: &Function, live: &[bool], levels: &[usize]) -> Vec<bool> {
    let is = |node: &ir::Node, classes: &[Class]| matches!(&node.inst, Inst::Op(op) if classes.contains(&op.class()));
    // What products and whole formulas follow from, and what leads to a collective of its own level from which they do.
    let (mut followed, mut leads) = (vec![false; function.nodes.len()], vec![false; function.nodes.len()]);
    for (id, node) in function.nodes.iter().rev().filter(|(id, _)| live[id.index()]) {
        let i = id.index();
        let asks = is(node, &[Class::Collective]) && !node.args.is_empty() && followed[i];
        for arg in &node.args {
            followed[arg.index()] |= followed[i] || is(node, &[Class::Contract, Class::Composite]);
            leads[arg.index()] |= (asks || leads[i]) && levels[arg.index()] == levels[i];
        }
    }
    let last = levels.iter().copied().max().unwrap_or(0);
    let (mut urgent, mut products) = (vec![false; last + 1], vec![0; last + 1]);
    let mut largest = 0;
    let ends = |i: usize| !leads[i] && !followed[i];
    for (id, node) in function.nodes.iter().filter(|(id, _)| live[id.index()]) {
        let i = id.index();
        urgent[levels[i]] |= leads[i] && is(node, &[Class::Contract, Class::Composite]);
        if is(node, &[Class::Contract]) {
            let work = flops(function, node);
            largest = work.max(largest);
            products[levels[i]] += if ends(i) { work } else { 0 };
        }
    }
    let second = |i: usize| ends(i) && urgent[levels[i]] && products[levels[i]] * WORTH > largest;
    (0..leads.len()).map(second).collect()
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
    let (users, returned) = (function.users(), function.returned());
    for (id, node) in function.nodes.iter().rev() {
        let i = id.index();
        if light[i] && !matches!(node.inst, Inst::Param(_)) && !returned[i] {
            let first = users[i].iter().map(|u| levels[u.index()]).min();
            levels[i] = first.unwrap_or(levels[i]);
        }
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The backward of two products, of which the second's activation is summed over ranks.
    const BACKWARD: &str = r#"
module "case"
mesh [tp:2]
level local

fn @backward(%0: f32[L:8, F:4], %1: f32[F:4, D:6], %2: f32[L:8, D:6], %3: f32[D:6, E:5]) {
  %4 = matmul(%0, %2) {"spec":"lf,ld->fd","dims":["F","D"]} : f32[F:4, D:6]
  %5 = matmul(%0, %1) {"spec":"lf,fd->ld","dims":["L","D"]} : f32[L:8, D:6]
  %6 = all_reduce(%5) {"axes":["tp"],"ranks":2} : f32[L:8, D:6]
  %7 = matmul(%6, %3) {"spec":"ld,de->le","dims":["L","E"]} : f32[L:8, E:5]
  %8 = neg(%4) : f32[F:4, D:6]
  return %7, %8
}
"#;

    /// The segments of a module's function, by its nodes' numbers.
    fn groups(text: &str) -> Vec<Vec<usize>> {
        let module = ir::parse(text).expect("a module");
        let (_, function) = module.functions.iter().next().expect("a function");
        group(function).iter().map(|group| group.iter().map(|id| id.index()).collect()).collect()
    }

    #[test]
    fn gradients_of_weights_are_apart_from_what_is_summed_beside_them() {
        assert_eq!(groups(BACKWARD), [vec![5], vec![4, 8], vec![7]]);
    }

    /// Two halves of rows are gathered, multiplied, and summed.
    const PIECES: &str = r#"
module "case"
mesh [tp:2]
level local

fn @forward(%0: f32[L:4, D:6], %1: f32[L:4, D:6], %2: f32[F:4, D:6], %3: f32[D:6, F:4]) {
  %4 = silu(%0) : f32[L:4, D:6]
  %5 = silu(%1) : f32[L:4, D:6]
  %6 = all_gather(%4) {"axes":["tp"],"dim":{"name":"R","size":2}} : f32[R:2, L:4, D:6]
  %7 = all_gather(%5) {"axes":["tp"],"dim":{"name":"R","size":2}} : f32[R:2, L:4, D:6]
  %8 = matmul(%6, %2) {"spec":"rld,fd->rlf","dims":["R","L","F"]} : f32[R:2, L:4, F:4]
  %9 = matmul(%7, %2) {"spec":"rld,fd->rlf","dims":["R","L","F"]} : f32[R:2, L:4, F:4]
  %10 = matmul(%8, %3) {"spec":"rlf,df->rld","dims":["R","L","D"]} : f32[R:2, L:4, D:6]
  %11 = matmul(%9, %3) {"spec":"rlf,df->rld","dims":["R","L","D"]} : f32[R:2, L:4, D:6]
  %12 = reduce_scatter(%10) {"axes":["tp"]} : f32[L:4, D:6]
  %13 = reduce_scatter(%11) {"axes":["tp"]} : f32[L:4, D:6]
  return %12, %13
}
"#;

    #[test]
    fn pieces_of_exchanges_have_segments_of_their_own() {
        // Nothing is won by two segments for what leads to the gathers.
        assert_eq!(groups(PIECES), [vec![4, 5], vec![8, 10], vec![9, 11]]);
    }
}
