//! What a plan needs and does, for people: sums, tables, pictures, predictions, differences.
//!
//! All of it follows from the plan and, for times, from a machine's figures. Nothing here reads a file or prints.

pub mod describe;
pub mod diff;
pub mod dot;
pub mod explain;
mod outline;
pub mod quantity;
pub mod schedule;
pub mod summary;
pub mod timeline;

use cost::{Machine, Prediction};
use diag::{Diagnostic, Diagnostics};
use plan::{Plan, Program};

/// What a machine is predicted to take for a program, by class of ranks.
pub fn predicted(machine: &Machine, plan: &Plan, program: &Program) -> Result<Vec<Prediction>, Diagnostics> {
    cost::simulate(machine, plan, program).map_err(|stuck| {
        Diagnostic::error(format!("the plan cannot be played: {stuck}")).help("`mmrun PLAN --check` says why").into()
    })
}
