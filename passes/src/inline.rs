//! `inline`: replaces plain calls by what they call, and drops functions that nobody calls any more.
//!
//! Bodies of repeated calls stay functions, and so do kernels. After it, a function has no plain call but of kernels.

use diag::{Diagnostic, Diagnostics};
use ir::{Builder, Call, Function, FunctionKind, Id, Inst, Mismatch, Module, NodeId, Type};
use serde::{Deserialize, Serialize};

use crate::{Context, Pass, callgraph, diagnostics};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inline {}

impl Pass for Inline {
    fn run(&self, module: &mut Module, cx: &mut Context<'_>) -> Result<(), Diagnostics> {
        refuse_large(module)?;
        // Callees stand before callers: what is spliced has no plain calls left itself.
        for id in module.functions.ids() {
            let function = &module.functions[id];
            let calls = function.nodes.iter().filter(|(_, n)| inlined(module, &n.inst).is_some()).count();
            if calls > 0 {
                let new = flat(module, function).map_err(|m| diagnostics::unfit("inline", function, &m))?;
                module.functions[id] = new;
                cx.stats.count("calls inlined", calls as u64);
            }
        }
        let dropped = callgraph::sweep(module);
        cx.stats.count("functions dropped", dropped as u64);
        Ok(())
    }
}

/// Functions that call each other twice grow with every level: what has no end is refused before memory is gone.
fn refuse_large(module: &Module) -> Result<(), Diagnostics> {
    let mut sizes: Vec<u64> = vec![];
    for (_, function) in module.functions.iter() {
        let calls = function.nodes.iter().filter_map(|(_, node)| inlined(module, &node.inst));
        let own = function.nodes.len() as u64;
        let size = calls.fold(own, |sum, callee| sum.saturating_add(sizes.get(callee.index()).copied().unwrap_or(0)));
        if size > MAX_NODES {
            let message = format!("@{} has {size} operators once its calls are written out", function.name);
            let most =
                format!("a function of one step may have {MAX_NODES}: fold over a stack of equal modules instead");
            return Err(Diagnostic::error(message).help(most).into());
        }
        sizes.push(size);
    }
    Ok(())
}

/// Operators of one function.
const MAX_NODES: u64 = 10_000_000;

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
                results.into_iter().zip(node.ty.items()).map(|(r, ty)| renamed(b, r, ty)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// So many functions, each of which calls the one before twice.
    fn doubling(levels: usize) -> Module {
        let mut text = "fn @f0(%0: f32[A:4]) {\n  %1 = exp(%0) : f32[A:4]\n  return %1\n}\n".to_owned();
        for level in 1..=levels {
            let call = |at: usize, of: usize| format!("  %{at} = call @f{}(%{of}) : f32[A:4]\n", level - 1);
            text += &format!("fn @f{level}(%0: f32[A:4]) {{\n{}{}  return %2\n}}\n", call(1, 0), call(2, 1));
        }
        ir::parse(&text).expect("a module")
    }

    #[test]
    fn functions_that_double_with_every_call_are_refused_in_time() {
        let mut module = doubling(10);
        Inline {}.run(&mut module, &mut Context::default()).expect("1024 operators");
        let (_, last) = module.functions.iter().last().expect("a function");
        assert_eq!(last.nodes.len(), 1 + 1024);
        let refused = Inline {}.run(&mut doubling(60), &mut Context::default()).expect_err("2^60 operators");
        assert!(refused.to_string().contains("operators once its calls are written out"), "{refused}");
    }
}
