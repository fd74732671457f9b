//! `--check`: what can be proven about a plan before it runs, in words.

use std::io::{ErrorKind, Write};

use device::image;
use plan::{PlanFile, memory, prove};

use crate::backend::Backend;
use crate::cli::Args;
use crate::failure::Failure;
use crate::progress::{bytes, plural};
use crate::setup;

pub fn check(args: &Args) -> Result<(), Failure> {
    let bytes = image(&args.plan).map_err(|e| Failure::file(&args.plan, &e))?;
    let file = setup::open(&args.plan, &bytes)?;
    let mut out = facts(&file)?;
    if let Some(path) = &args.weights {
        let parameters = &file.plan.manifest.parameters;
        let told = data::Weights::open(path, parameters)?.check(parameters, &file.plan.header.configs)?;
        told.iter().for_each(|line| out.push_str(&format!("weights: {line}\n")));
        out.push_str(&format!("weights: {} holds all {} parameters and no others\n", path.display(), parameters.len()));
    }
    let mut to = std::io::stdout();
    match to.write_all(out.as_bytes()).and_then(|()| to.flush()) {
        // A reader that has seen enough, such as `head`.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|e| Failure::new(format!("standard output: {e}"))),
    }
}

fn facts(file: &PlanFile<'_>) -> Result<String, Failure> {
    let (plan, h) = (&file.plan, &file.plan.header);
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!(
        "plan: {} {} {}, {}, for {} ({}), by mmc {}",
        h.model, h.preset, h.task, h.dtype, h.target, h.device, h.compiler
    ));
    if h.world() > 1 {
        line(format!("mesh: {} ranks, {}", h.world(), setup::mesh_of(&h.mesh)));
    }
    line(format!("hash: {}", file.hash));
    line("file: every section matches its checksum, and every index points at something".into());
    for proof in prove(plan).map_err(|v| Failure::violations(&v))? {
        let program = format!("{}, {}", proof.program, proof.class);
        line(format!(
            "{program}: buffers that live at the same time share no byte of the arena ({} buffers)",
            proof.buffers
        ));
        line(format!(
            "{program}: what is read was written before, and no two accesses race ({} instructions on {} lanes, {} accesses, {} conflicts in order)",
            proof.instructions, proof.lanes, proof.accesses, proof.ordered
        ));
        if h.world() > 1 {
            line(format!(
                "{program}: no rank waits for ever: all collectives meet, in an order without circles ({}, {} ranks)",
                plural(proof.meetings, "collective"),
                h.world()
            ));
        }
    }
    for scope in plan.scopes() {
        let m = memory(scope);
        let asleep = match m.sleeping_bytes {
            0 => String::new(),
            n => format!(
                "; {} of parameters in the host's memory, of which those of one residency are on the device",
                bytes(n)
            ),
        };
        line(format!(
            "{}, {}: {} of memory, of which parameters {}, optimizer {}, activations at most {}{asleep}",
            scope.program.name,
            scope.class.name,
            bytes(m.arena_bytes),
            bytes(m.params_bytes),
            bytes(m.optimizer_bytes),
            bytes(m.activations_peak_bytes)
        ));
    }
    line(match Backend::of(h) {
        Ok(backend) => format!("kernels: {}", (backend.check)(file)?),
        Err(_) => format!("kernels: for {}, not looked at here", h.target),
    });
    Ok(out)
}
