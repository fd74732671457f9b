//! `simplify`: rewrites operators to cheaper ones that compute the same bits.

use diag::Diagnostics;
use ir::{Module, Rewriter};
use serde::{Deserialize, Serialize};

use crate::{Context, Pass, blame};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Simplify {}

impl Pass for Simplify {
    fn run(&self, module: &mut Module, _: &mut Context<'_>) -> Result<(), Diagnostics> {
        for (_, function) in module.functions.iter_mut() {
            *function = Rewriter::new(function).finish().map_err(|m| blame::unfit("simplify", function, &m))?;
        }
        Ok(())
    }
}
