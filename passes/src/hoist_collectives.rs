//! `hoist-collectives`: hoists collectives that are identical in every micro-batch out of the loop over micro-batches.
//!
//! Parameters are gathered before the first turn of a repeated call, and gradients scattered after the last. Both are held
//! whole for a step, which costs memory. Runs after `simplify`, which takes all other sums over ranks out of repeated calls.

mod gathers;
mod reductions;
mod site;

use diag::Diagnostics;
use ir::Module;
use serde::{Deserialize, Serialize};

pub use self::reductions::{Kinds, hoist_reductions};
pub use self::site::{Calls, result};
use crate::{Context, Pass, callgraph, diagnostics};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoistCollectives {}

impl Pass for HoistCollectives {
    fn run(&self, module: &mut Module, cx: &mut Context<'_>) -> Result<(), Diagnostics> {
        for index in 0..module.programs.len() {
            let gathered = gathers::hoist_gathers(module, index);
            let caller = module.programs[index].function;
            let done =
                gathered.and_then(|gathered| Ok((gathered, hoist_reductions(module, caller, Kinds::Scattered)?)));
            let (gathered, scattered) =
                done.map_err(|m| diagnostics::unfit("hoist-collectives", &module.functions[caller], &m))?;
            cx.stats.count("parameters gathered once", gathered);
            cx.stats.count("gradients scattered once", scattered);
        }
        callgraph::sweep(module);
        Ok(())
    }
}
