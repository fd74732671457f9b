//! `once`: what each micro-batch would exchange with other ranks alike, a step exchanges once.
//!
//! Parameters are gathered before the first turn of a repeated call, and gradients scattered after the last, for the
//! memory of both as they are whole. Runs after `simplify`, which takes all other sums over ranks out of repeated calls.

mod questions;
mod site;
mod sums;

use diag::Diagnostics;
use ir::Module;
use serde::{Deserialize, Serialize};

pub use self::site::{Calls, result};
pub use self::sums::{Kinds, hoist};
use crate::{Context, Pass, blame, callgraph};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Once {}

impl Pass for Once {
    fn run(&self, module: &mut Module, cx: &mut Context<'_>) -> Result<(), Diagnostics> {
        for index in 0..module.programs.len() {
            let gathered = questions::hoist(module, index);
            let caller = module.programs[index].function;
            let done = gathered.and_then(|gathered| Ok((gathered, hoist(module, caller, Kinds::Scattered)?)));
            let (gathered, scattered) = done.map_err(|m| blame::unfit("once", &module.functions[caller], &m))?;
            cx.stats.count("parameters gathered once", gathered);
            cx.stats.count("gradients scattered once", scattered);
        }
        callgraph::sweep(module);
        Ok(())
    }
}
