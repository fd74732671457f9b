//! Figures for people: bytes, counts, durations, and the lines that `mmc compile` ends with.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use plan::Plan;

pub struct Times {
    pub evaluation: Duration,
    pub passes: Duration,
    pub code: Duration,
    pub whole: Duration,
}

pub fn of_plan(plan: &Plan, path: &Path, file_bytes: u64, hash: &str, times: &Times) -> String {
    let h = &plan.header;
    let mut out = String::new();
    let cpu = if h.cpu.is_empty() { String::new() } else { format!(" ({})", h.cpu) };
    let ranks = if h.world() == 1 { "1 rank".into() } else { format!("{} ranks", h.world()) };
    let _ = writeln!(out, "{} {} {} in {} for {}{cpu}, {ranks}", h.model, h.preset, h.task, h.dtype, h.target);
    let elements: u64 = plan.manifest.parameters.iter().map(|p| p.ty.elements() as u64).sum();
    let _ = writeln!(out, "  parameters  {} in {} tensors", count(elements), plan.manifest.parameters.len());
    for program in &plan.programs {
        for (class, body) in plan.classes.iter().zip(&program.bodies) {
            let m = plan::memory(plan, class, body);
            let who = if plan.classes.len() > 1 { format!(" on {}", class.name) } else { String::new() };
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
            "  step        {} instructions over {} kernels, {}",
            lengths.join(" + "),
            plan.kernels.len(),
            flops(h.flops_per_step)
        );
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

/// `3.2 GiB`.
pub fn bytes(n: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// `14.3 G`, powers of a thousand.
pub fn count(n: u64) -> String {
    let units = ["", "k", "M", "G", "T", "P"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { n.to_string() } else { format!("{value:.1} {}", units[unit]) }
}

/// `14.3 GFLOP`.
pub fn flops(n: u64) -> String {
    let count = count(n);
    format!("{count}{}FLOP", if n < 1000 { " " } else { "" })
}

pub fn seconds(d: Duration) -> String {
    let s = d.as_secs_f64();
    if s < 1.0 { format!("{:.0} ms", s * 1e3) } else { format!("{s:.1} s") }
}

/// `12.3 ms`.
pub fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}
