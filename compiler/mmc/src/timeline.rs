//! `mmc timeline`: the predicted timeline of a plan, for Perfetto.

use std::path::Path;

use diag::{Diagnostic, Diagnostics};

use crate::args::Timeline;
use crate::output::{apart, write};
use crate::plan_file::{self, Read};
use crate::{Done, machines};

pub fn timeline(args: &Timeline) -> Done {
    let machine = args.machine.as_deref().map(Path::new);
    apart(&args.output, &[("the plan", Some(&args.plan)), ("the machine", machine)])?;
    let Read { plan, .. } = plan_file::read(&args.plan)?;
    let Some(machine) = machines::of_plan(args.machine.as_deref(), &plan)? else {
        return Err(Diagnostic::error(format!(
            "no figures are known of the machine that {} is for",
            args.plan.display()
        ))
        .help("name one with --machine: a built-in machine, or a file")
        .into());
    };
    write(&args.output, report::timeline::text(&plan, &machine)?.as_bytes())?;
    Ok(Diagnostics::default())
}
