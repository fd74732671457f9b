//! A kernel with its composites written out in primitive operators; products and attention stay whole.

use std::collections::BTreeMap;

use ir::{Builder, Function, Inst, Mismatch, NodeId};

use super::form::Form;

/// Expands until nothing more expands. Tuples are gone afterwards, but for those of whole operators.
pub fn expand(function: &Function) -> Result<Function, Mismatch> {
    let mut current = function.clone();
    loop {
        let (next, changed) = expand_once(&current)?;
        current = next;
        if !changed {
            return Ok(current);
        }
    }
}

fn expand_once(from: &Function) -> Result<(Function, bool), Mismatch> {
    let mut b = Builder::new(from.name.clone());
    let mut map: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
    let mut changed = false;
    for &param in &from.params {
        let new = b.param(from.ty(param).clone());
        map.insert(param, vec![new]);
    }
    let live = from.live();
    for (id, node) in from.nodes.iter().filter(|(id, _)| live[id.index()]) {
        if map.contains_key(&id) {
            continue;
        }
        b.place = node.place;
        let args: Vec<NodeId> = node.args.iter().filter_map(|arg| map[arg].first().copied()).collect();
        let new = match &node.inst {
            Inst::Op(op) if !matches!(Form::of(op), Form::Whole(_)) => match op.expand(&mut b, &args) {
                Some(results) => {
                    changed = true;
                    results.to_vec()
                }
                None => vec![b.op(op.clone(), &args)],
            },
            // Of an expanded operator the results are nodes; of a whole one its tuple is.
            Inst::Get(index) if map[&node.args[0]].len() > 1 => vec![map[&node.args[0]][*index]],
            inst => vec![b.push(inst.clone(), args, node.ty.clone())],
        };
        map.insert(id, new);
    }
    let results = from.results.iter().map(|result| map[result][0]).collect();
    let mut function = b.finish()?;
    function.results = results;
    Ok((function, changed))
}
