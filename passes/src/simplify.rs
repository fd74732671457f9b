//! `simplify`: rewrites operators to cheaper ones that compute the same numbers, and drops what nobody reads.
//!
//! Equality saturation (egg) over each function on its own: rules add what else a value could be computed by, and the
//! cheapest set of operators that computes the results is taken. Equal expressions become one on the way in. What a
//! rule may change is the sign of a zero, the payload of a NaN, and roundings of numbers too small for their type; rules
//! of collectives may also sum over ranks in another order.

#[cfg(test)]
mod agreement;
mod cost;
mod extract;
mod facts;
mod residuals;
mod rules;
mod saturate;
mod site;
mod term;

use diag::Diagnostics;
use ir::{Function, FunctionKind, Id, Mismatch, Module, Rewriter};
use serde::{Deserialize, Serialize};

use self::extract::Extraction;
use self::residuals::MovableCollective;
use self::saturate::Saturation;
use crate::{Context, Pass, Stats, callgraph, diagnostics, hoist_collectives};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Simplify {}

/// Larger functions only lose what nobody reads: the search is a little worse than linear.
const MAX_NODES: usize = 20_000;

impl Pass for Simplify {
    fn run(&self, module: &mut Module, cx: &mut Context<'_>) -> Result<(), Diagnostics> {
        let ids: Vec<_> = module.functions.ids().collect();
        for id in ids {
            if module.functions[id].kind != FunctionKind::Plain {
                continue;
            }
            // Callees stand before their callers, so they are as simple as they get.
            let new = sum_once(module, id, &mut cx.stats)
                .and_then(|()| move_collectives(module, id, &mut cx.stats))
                .and_then(|()| simplified(&module.functions[id], &mut cx.stats));
            module.functions[id] = new.map_err(|m| diagnostics::unfit("simplify", &module.functions[id], &m))?;
        }
        // Functions that were added stand behind their callers.
        callgraph::sweep(module);
        Ok(())
    }
}

fn sum_once(module: &mut Module, caller: Id<Function>, stats: &mut Stats) -> Result<(), Mismatch> {
    match hoist_collectives::hoist_reductions(module, caller, hoist_collectives::Kinds::Whole)? {
        0 => {}
        left => stats.count("sums that left a repeated call", left),
    }
    Ok(())
}

/// Moves collectives into the callees that make their operands, where that takes no collective more.
fn move_collectives(module: &mut Module, caller: Id<Function>, stats: &mut Stats) -> Result<(), Mismatch> {
    let (mut declined, mut taken) = (0, vec![]);
    while let Some(movable) = MovableCollective::all(module, caller).get(declined) {
        let ids = [movable.from, movable.to, caller];
        let before = ids.map(|id| module.functions[id].clone());
        movable.apply(module, caller)?;
        let from = &mut module.functions[movable.from];
        *from = simplified(from, &mut Stats::default())?;
        if residuals::collectives(from) > residuals::collectives(&before[0]) {
            ids.into_iter().zip(before).for_each(|(id, function)| module.functions[id] = function);

            declined += 1;
        } else {
            stats.count("residuals kept as they are used", 1);
            taken.push(movable.to);
        }
    }
    taken.sort_unstable();
    taken.dedup();
    for id in taken {
        module.functions[id] = simplified(&module.functions[id], &mut Stats::default())?;
    }
    Ok(())
}

fn simplified(function: &Function, stats: &mut Stats) -> Result<Function, Mismatch> {
    let new = if function.nodes.len() > MAX_NODES {
        Rewriter::new(function).finish()?
    } else {
        let mut saturation = Saturation::of(function);
        for (rule, fired) in saturation.run(rules::all()) {
            stats.count(rule, fired);
        }
        Extraction::of(&saturation, function).function(&saturation, function)?
    };
    stats.count("nodes dropped", function.nodes.len().saturating_sub(new.nodes.len()) as u64);
    Ok(new)
}
