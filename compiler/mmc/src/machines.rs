//! Machines by what `--machine` takes: the name of a built-in one, or a file.

use std::path::Path;

use cost::Machine;
use diag::{Diagnostic, Diagnostics};
use plan::Plan;

use crate::input;

/// The machine of that name or in that file.
pub fn named(name: &str) -> Result<Machine, Diagnostics> {
    if let Some(machine) = cost::built_in(name) {
        return Ok(machine);
    }
    let known = || format!("the built-in machines are {}; others are files", cost::built_in_names().join(", "));
    let text = input::text(Path::new(name), input::MOST_TEXT)
        .map_err(|e| Diagnostic::error(format!("cannot read the machine {name}: {e}")).help(known()))?;
    let machine = Machine::parse(&text);
    Ok(machine.map_err(|e| {
        Diagnostic::error(format!("{name} is no machine: {e}"))
            .help("every figure has its unit in its name; compiler/cost/machines holds examples")
    })?)
}

/// The machine whose figures decide the order of instructions where none is asked for.
pub fn of_target(target: &str) -> Machine {
    cost::built_in(target).unwrap_or_else(cost::typical)
}

/// The machine that is asked for, or else the one the plan was compiled for, if figures of it are known.
pub fn of_plan(asked: Option<&str>, plan: &Plan) -> Result<Option<Machine>, Diagnostics> {
    match asked {
        Some(name) => named(name).map(Some),
        None => Ok(cost::built_in(&plan.header.target).or_else(|| cost::built_in(&plan.header.device))),
    }
}
