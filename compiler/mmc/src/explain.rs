//! `mmc explain`: what a plan needs and does.

use std::path::Path;

use diag::{Diagnostic, Diagnostics};
use report::explain::kernels::Limits;
use report::explain::{Measured, Shown};

use crate::args::Explain;
use crate::output::{apart, print, write};
use crate::plan_file::{self, Read};
use crate::{Done, input, machines};

/// Columns of a drawing where the terminal does not say how many it has, and those left of it for names.
const WIDE: usize = 120;
const MARGIN: usize = 18;

pub fn explain(args: &Explain) -> Done {
    if let Some(path) = &args.memory_svg {
        let machine = args.machine.as_deref().map(Path::new);
        apart(path, &[("the plan", Some(&args.plan)), ("the machine", machine), ("the trace", args.trace.as_deref())])?;
    }
    let Read { plan, hash } = plan_file::read(&args.plan)?;
    let measured = args.trace.as_deref().map(trace).transpose()?;
    let machine = machines::of_plan(args.machine.as_deref(), &plan)?;
    let machine = machine.as_ref();
    if let Some(path) = &args.memory_svg {
        write(path, report::explain::memory_svg::picture(&plan, machine)?.as_bytes())?;
        return Ok(Diagnostics::default());
    }
    let giga = |value: Option<f64>| value.map(|value| value * 1e9);
    let limits = Limits { machine, peak: giga(args.peak), bandwidth: giga(args.bandwidth) };
    let kernels = args.kernels.then_some(limits);
    let shown = Shown { machine, all: args.all, kernels, measured: measured.as_ref() };
    if args.json {
        print(&format!("{:#}\n", report::explain::json(&plan, &hash, &shown)?))?;
    } else if args.schedule {
        print(&report::schedule::text(&plan, machine, columns())?)?;
    } else if args.listing {
        print(&plan.to_string())?;
    } else {
        print(&report::explain::text(&plan, &hash, &shown)?)?;
    }
    Ok(Diagnostics::default())
}

/// Times of kernels out of a file that `mmrun --trace` wrote.
fn trace(path: &Path) -> Result<Measured, Diagnostics> {
    let fault = |why: String| {
        Diagnostic::error(format!("{}: {why}", path.display())).help("`mmrun PLAN --trace FILE` writes a trace")
    };
    let text = input::bytes(path, input::MOST_PRINTED).map_err(|e| fault(format!("cannot read the trace: {e}")))?;
    Measured::parse(&text).map_err(|e| fault(e.to_string()).into())
}

/// As wide as the terminal says it is, for drawings.
fn columns() -> usize {
    let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse::<usize>().ok());
    told.map_or(WIDE, |columns| columns.saturating_sub(MARGIN).max(WIDE / 4))
}
