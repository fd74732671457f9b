//! Writes regions out in pieces: all of one piece before the next, and the whole of what others read from them.

use std::collections::BTreeMap;

use ir::{Function, Inst, Mismatch, NodeId, Rewriter};

use super::Cutting;
use super::region::{Cut, Region};
use super::times::smaller;

pub fn rewrite(function: &Function, plans: &[Cutting]) -> Result<Function, Mismatch> {
    let mut of: BTreeMap<NodeId, &Cutting> = BTreeMap::new();
    for plan in plans {
        of.extend(plan.region.steps.keys().map(|member| (*member, plan)));
    }
    let live = function.live();
    let mut r = Rewriter::new(function);
    for id in function.nodes.ids() {
        if live[id.index()] {
            make(&mut r, id, &of)?;
        }
    }
    r.finish()
}

/// A node and all that it needs.
fn make(r: &mut Rewriter<'_>, id: NodeId, of: &BTreeMap<NodeId, &Cutting>) -> Result<(), Mismatch> {
    let mut todo = vec![id];
    while let Some(&id) = todo.last() {
        let needs: Vec<NodeId> = match of.get(&id) {
            _ if r.done(id) => vec![],
            None => r.from.nodes[id].args.to_vec(),
            Some(Cutting { region, .. }) => {
                let args = region.steps.keys().flat_map(|m| r.from.nodes[*m].args.iter().copied());
                args.filter(|arg| !region.steps.contains_key(arg)).collect()
            }
        };
        let before = todo.len();
        todo.extend(needs.into_iter().filter(|need| !r.done(*need)));
        if todo.len() == before {
            todo.pop();
            match of.get(&id) {
                _ if r.done(id) => {}
                None => {
                    r.copy(id);
                }
                Some(Cutting { region, count }) => in_pieces(r, region, *count)?,
            }
        }
    }
    Ok(())
}

fn in_pieces(r: &mut Rewriter<'_>, region: &Region, count: usize) -> Result<(), Mismatch> {
    let function = r.from;
    let misfit = || Mismatch::new("a region does not fall into pieces");
    let mut cut: BTreeMap<(NodeId, Cut), Vec<NodeId>> = BTreeMap::new();
    let mut made: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
    for piece in 0..count {
        for (&id, step) in &region.steps {
            let node = &function.nodes[id];
            let (Inst::Op(op), Some(result)) = (&node.inst, node.ty.tensor()) else { return Err(misfit()) };
            r.b.place = node.place;
            let mut args = vec![];
            for (arg, how) in node.args.iter().zip(&step.args) {
                args.push(match (made.get(arg), how) {
                    (Some(pieces), _) => pieces[piece],
                    (None, None) => r.get(*arg),
                    (None, Some(how)) => {
                        let whole = r.get(*arg);
                        let pieces = cut.entry((*arg, *how)).or_insert_with(|| r.b.pieces(whole, how.dim, count));
                        pieces[piece]
                    }
                });
            }
            let op = op.localize(&[smaller(result, step.result, count)]).describe_chunk(count);
            let new = r.b.op(op, &args);
            made.entry(id).or_default().push(new);
        }
    }
    for (&id, step) in &region.steps {
        let (ty, how) = (function.ty(id).tensor().ok_or_else(misfit)?, step.result);
        r.b.place = function.nodes[id].place;
        let whole = match region.outputs.contains(&id) {
            true => r.b.joined(&made[&id], how.dim, how.outer, ty),
            // Nobody reads it.
            false => made[&id][0],
        };
        r.set(id, whole);
    }
    Ok(())
}
