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
mod rules;
mod saturate;
mod site;
mod term;

use diag::Diagnostics;
use ir::{Function, FunctionKind, Mismatch, Module, Rewriter};
use serde::{Deserialize, Serialize};

use self::extract::Extraction;
use self::saturate::Saturation;
use crate::{Context, Pass, Stats, blame};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Simplify {}

/// Larger functions only lose what nobody reads: the search is a little worse than linear.
const MAX_NODES: usize = 20_000;

impl Pass for Simplify {
    fn run(&self, module: &mut Module, cx: &mut Context<'_>) -> Result<(), Diagnostics> {
        for (_, function) in module.functions.iter_mut() {
            if function.kind == FunctionKind::Plain {
                *function = simplified(function, &mut cx.stats).map_err(|m| blame::unfit("simplify", function, &m))?;
            }
        }
        Ok(())
    }
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
