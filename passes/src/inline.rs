//! `inline`: replaces plain calls by what they call, and drops functions that nobody calls any more.
//!
//! Bodies of repeated calls stay functions, and so do kernels. After it, a function has no plain call but of kernels.

use diag::Diagnostics;
use ir::{Builder, Call, Function, FunctionKind, Id, Inst, Mismatch, Module, NodeId, Type};
use serde::{Deserialize, Serialize};

use crate::{Context, Pass, blame, callgraph};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inline {}

impl Pass for Inline {
    fn run(&self, module: &mut Module, cx: &mut Context<'_>) -> Result<(), Diagnostics> {
        // Callees stand before callers: what is spliced has no plain calls left itself.
        for id in module.functions.ids() {
            let function = &module.functions[id];
            let calls = function.nodes.iter().filter(|(_, n)| inlined(module, &n.inst).is_some()).count();
            if calls > 0 {
                let new = flat(module, function).map_err(|m| blame::unfit("inline", function, &m))?;
                module.functions[id] = new;
                cx.stats.count("calls inlined", calls as u64);
            }
        }
        let dropped = callgraph::sweep(module);
        cx.stats.count("functions dropped", dropped as u64);
        Ok(())
    }
}

fn inlined(module: &Module, inst: &Inst) -> Option<Id<Function>> {
    match inst {
        Inst::Call(Call { callee, times: None, .. }) if module.functions[*callee].kind == FunctionKind::Plain => {
            Some(*callee)
        }
        _ => None,
    }
}

fn flat(module: &Module, function: &Function) -> Result<Function, Mismatch> {
    let mut b = Builder::new(function.name.clone());
    (b.function.kind, b.function.recompute) = (function.kind, function.recompute);
    let mut params = vec![];
    for &p in &function.params {
        b.place = function.nodes[p].place;
        params.push(b.param(function.ty(p).clone()));
    }
    let results = splice(module, &mut b, function, &params);
    let mut out = b.finish()?;
    out.results = results;
    Ok(out)
}

/// Adds the live nodes of `from` to `b`, with `args` for its parameters. Returns what its results became.
fn splice(module: &Module, b: &mut Builder, from: &Function, args: &[NodeId]) -> Vec<NodeId> {
    let live = from.live();
    // What each node became; several if it was an inlined call.
    let mut map: Vec<Vec<NodeId>> = vec![vec![]; from.nodes.len()];
    for (&p, &arg) in from.params.iter().zip(args) {
        let named = renamed(b, arg, from.ty(p));
        map[p.index()] = vec![named];
    }
    for (id, node) in from.nodes.iter() {
        if !live[id.index()] || matches!(node.inst, Inst::Param(_)) {
            continue;
        }
        b.place = node.place;
        let args: Vec<NodeId> = node.args.iter().map(|a| map[a.index()][0]).collect();
        map[id.index()] = match (&node.inst, inlined(module, &node.inst)) {
            (_, Some(callee)) => {
                let results = splice(module, b, &module.functions[callee], &args);
                b.place = node.place;
                let types = match &node.ty {
                    Type::Tuple(items) => items.as_slice(),
                    one => std::slice::from_ref(one),
                };
                results.into_iter().zip(types).map(|(r, ty)| renamed(b, r, ty)).collect()
            }
            (Inst::Get(i), _) if inlined(module, &from.nodes[node.args[0]].inst).is_some() => {
                vec![map[node.args[0].index()][*i]]
            }
            // The only look inside a stack whose dims a call may have renamed.
            (Inst::Unchunk, _) => {
                let joined = b.unchunk(args[0]);
                vec![renamed(b, joined, &node.ty)]
            }
            (Inst::Op(op), _) => vec![b.op(op.clone(), &args)],
            (inst, _) => vec![b.push(inst.clone(), args, node.ty.clone())],
        };
    }
    from.results.iter().map(|r| map[r.index()][0]).collect()
}

/// `x` under the dim names of `to`. Stacks keep theirs: what reads them goes by position.
fn renamed(b: &mut Builder, x: NodeId, to: &Type) -> NodeId {
    match to {
        Type::Tensor(ty) => b.reshape(x, ty),
        _ => x,
    }
}
