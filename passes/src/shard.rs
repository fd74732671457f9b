//! `shard`: gives every tensor its sharding, and makes each change of sharding a `reshard`.
//!
//! Hints seed the dims they name; factors carry axes from tensor to tensor, hints of the model first, sequence
//! parallelism next, storage last (after GSPMD and Shardy). Then each operator takes the axes that its factors allow,
//! and where an operand or result is held otherwise, a `reshard` stands between.

mod assign;
mod assignment;
mod copy;
mod expand;
mod insert;
mod propagate;
mod seed;
mod stale;
mod unshare_constants;
mod why;

use diag::Diagnostics;
use ir::{Level, Module};
use serde::{Deserialize, Serialize};

use crate::{Context, Pass};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {}

impl Pass for Shard {
    fn run(&self, module: &mut Module, _: &mut Context<'_>) -> Result<(), Diagnostics> {
        if module.level != Level::Global {
            return Ok(());
        }
        seed::check(module)?;
        copy::by_call(module);
        unshare_constants::by_use(module)?;
        // What must be whole and is wished cut is written as the sums it consists of, which may be cut.
        let mut table = propagate::model(module)?;
        while expand::blocked(module, &table) {
            table = propagate::model(module)?;
        }
        propagate::fill(module, &mut table);
        propagate::store(module, &mut table);
        insert::reshards(module, &table)?;
        module.level = Level::Sharded;
        Ok(())
    }
}
