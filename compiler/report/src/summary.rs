//! The lines that `mmc compile` ends with: what was compiled, its memory, its file, and how long it took.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use plan::Plan;

use crate::describe;
use crate::quantity::{bytes, count, flops, seconds};

pub struct Times {
    pub evaluation: Duration,
    pub passes: Duration,
    pub code: Duration,
    pub whole: Duration,
}

pub fn of_plan(plan: &Plan, path: &Path, file_bytes: u64, hash: &str, times: &Times) -> String {
    let h = &plan.header;
    let mut out = String::new();
    let device = if h.device.is_empty() { String::new() } else { format!(" ({})", h.device) };
    let ranks = if h.world() == 1 { "1 rank".into() } else { format!("{} ranks", h.world()) };
    let _ = writeln!(out, "{} {} {} in {} for {}{device}, {ranks}", h.model, h.preset, h.task, h.dtype, h.target);
    let elements: u64 = plan.manifest.parameters.iter().map(|p| p.ty.elements() as u64).sum();
    let _ = writeln!(out, "  parameters  {} in {} tensors", count(elements), plan.manifest.parameters.len());
    for program in &plan.programs {
        let (of, label) = match plan.programs.len() {
            1 => (String::new(), "step"),
            _ => (format!(" in {}", program.name), program.name.as_str()),
        };
        for scope in plan.scopes_of(program) {
            let m = plan::memory(scope);
            let class = scope.class;
            let who = if plan.classes.len() > 1 { format!("{of} on {}", class.name) } else { of.clone() };
            let _ = writeln!(
                out,
                "  memory      {} = parameters {} + optimiser {} + the rest {}{who}",
                bytes(m.arena_bytes),
                bytes(m.params_bytes),
                bytes(m.optimizer_bytes),
                bytes(m.arena_bytes.saturating_sub(m.params_bytes + m.optimizer_bytes + m.state_bytes)),
            );
        }
        let host = program.bodies.iter().map(|body| body.host_bytes).max().filter(|host| *host > 0);
        if let Some(host) = host {
            let _ = writeln!(out, "  offloaded   {} in the host's memory", bytes(host));
        }
        let lengths: Vec<String> = program.bodies.iter().map(|body| body.instructions.len().to_string()).collect();
        let _ = writeln!(
            out,
            "  {label:<11} {} instructions over {} kernels, {}{}",
            lengths.join(" + "),
            plan.kernels.len(),
            flops(program.flops),
            describe::runs(program),
        );
    }
    let asleep = plan.scopes().map(|scope| plan::memory(scope).sleeping_bytes).max().unwrap_or(0);
    if asleep > 0 {
        let names: Vec<&str> = plan.residencies.iter().map(|r| r.name.as_str()).collect();
        let of = names.join(", ");
        let _ =
            writeln!(out, "  residencies {of}: {} in the host's memory, one at a time on the device", bytes(asleep));
    }
    let blobs = plan::Archive::from_bytes(&plan.object).unwrap_or_default().blobs;
    let segments: Vec<u64> =
        blobs.iter().filter(|b| b.kind == plan::BlobKind::Air).map(|b| b.bytes.len() as u64).collect();
    if let Some(largest) = segments.iter().max() {
        let _ = writeln!(out, "  segments    {} distinct, the largest graph {}", segments.len(), bytes(*largest));
    }
    let _ =
        writeln!(out, "  file        {} ({}, plan {})", path.display(), bytes(file_bytes), &hash[..hash.len().min(12)]);
    let _ = writeln!(
        out,
        "  compiled in {} (model {}, passes {}, code {})",
        seconds(times.whole),
        seconds(times.evaluation),
        seconds(times.passes),
        seconds(times.code)
    );
    out
}
