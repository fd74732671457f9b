//! `recompute`: marks the blocks whose activations are dropped after the forward and computed again in the backward.
//!
//! A block is the body of a repeated call, the outermost one: what it calls in turn is computed again with it. Only the
//! values that blocks hand to each other are then kept. Numbers stay the same to the bit, since a kernel's result depends on
//! its operands alone. Runs before `autodiff`, which makes the backward of a marked function.

use diag::{Diagnostic, Diagnostics};
use ir::{Function, Id, Inst, Module};
use serde::{Deserialize, Serialize};

use crate::{Context, Pass};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// What the model marks itself, and nothing else.
    None,
    /// Each block.
    #[default]
    Full,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recompute {
    #[serde(default)]
    pub mode: Mode,
}

impl Pass for Recompute {
    fn run(&self, module: &mut Module, cx: &mut Context<'_>) -> Result<(), Diagnostics> {
        if self.mode == Mode::None {
            return Ok(());
        }
        let blocks = blocks(module);
        if blocks.is_empty() {
            cx.warnings.push(
                Diagnostic::warning("no block to compute again: the model repeats no module")
                    .help("a stack of equal blocks, folded over, is what `recompute` works on"),
            );
        }
        cx.stats.count("blocks", blocks.len() as u64);
        for block in blocks {
            module.functions[block].recompute = true;
        }
        Ok(())
    }
}

/// The bodies of repeated calls that programs reach without going through another.
fn blocks(module: &Module) -> Vec<Id<Function>> {
    let mut seen = vec![false; module.functions.len()];
    let mut todo: Vec<Id<Function>> = module.programs.iter().map(|p| p.function).collect();
    let mut blocks = vec![];
    while let Some(id) = todo.pop() {
        if std::mem::replace(&mut seen[id.index()], true) {
            continue;
        }
        for (_, node) in module.functions[id].nodes.iter() {
            let Inst::Call(call) = &node.inst else { continue };
            match call.times {
                None => todo.push(call.callee),
                Some(_) if !blocks.contains(&call.callee) => blocks.push(call.callee),
                Some(_) => {}
            }
        }
    }
    blocks
}
