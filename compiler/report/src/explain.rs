//! What a plan needs and does. All figures are sums over its buffers and instructions.

pub mod figures;
mod kept;
pub mod kernels;
mod measured;
mod memory;
pub mod memory_svg;
mod operators;
pub mod reshards;

use std::fmt::Write;

use cost::{Machine, Prediction};
use diag::Diagnostics;
use plan::{Body, Class, Plan, Traffic, When};
use serde_json::Value;

use self::figures::{Figures, figures};
use self::kernels::Limits;
pub use self::measured::{Measured, TraceError};
use self::reshards::Reshard;
use crate::describe;
use crate::quantity::{bytes, flops, milliseconds};

/// Rows of the table of reshards unless all are shown.
const TOP: usize = 12;

/// What is shown of a plan.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown<'a> {
    /// Its figures predict times.
    pub machine: Option<&'a Machine>,
    /// Every row of each table.
    pub all: bool,
    /// Each kernel, too, beside these limits.
    pub kernels: Option<Limits<'a>>,
    /// What each kernel took.
    pub measured: Option<&'a Measured>,
}

/// The figures as JSON.
pub fn json(plan: &Plan, hash: &str, shown: &Shown<'_>) -> Result<Value, Diagnostics> {
    let mut figures = figures::json(plan, hash, shown.machine)?;
    if let Some(limits) = shown.kernels {
        figures["kernels"] = bodies(plan).map(|b| kernels::json(plan, b, limits, shown.measured)).collect();
    }
    Ok(figures)
}

fn bodies(plan: &Plan) -> impl Iterator<Item = (&Class, &Body)> {
    plan.programs.iter().flat_map(|program| plan.classes.iter().zip(&program.bodies))
}

/// The figures in words.
pub fn text(plan: &Plan, hash: &str, shown: &Shown<'_>) -> Result<String, Diagnostics> {
    let machine = shown.machine;
    let mut out = String::new();
    let _ = writeln!(out, "{}", describe::title(plan));
    let _ = writeln!(out, "mesh  {}", describe::mesh(&plan.header.mesh));
    let _ = writeln!(out, "plan  {hash}");
    for program in &plan.programs {
        for feed in &program.feeds {
            let from = if feed.source.is_data() { "data" } else { "drawn" };
            let _ = writeln!(out, "  feed  {} {} ({from})", describe::of_program(plan, program, &feed.name), feed.ty);
        }
        for emit in program.emits.iter().filter(|e| e.when == When::Always) {
            let _ = writeln!(out, "  emit  {} {}", describe::of_program(plan, program, &emit.name), emit.ty);
        }
    }
    for (figures, (class, body)) in figures(plan, machine)?.iter().zip(bodies(plan)) {
        section(&mut out, plan, figures, shown.all);
        if let Some((machine, prediction)) = machine.zip(figures.prediction.as_ref()) {
            prediction_lines(&mut out, machine, prediction);
        }
        kept::table(&mut out, plan, body, shown.all);
        operators::table(&mut out, plan, body);
        if let Some(limits) = shown.kernels {
            kernels::table(&mut out, plan, (class, body), limits, shown.measured);
        }
    }
    Ok(out)
}

fn prediction_lines(out: &mut String, machine: &Machine, p: &Prediction) {
    let _ = writeln!(out, "  predicted on {}, {:.0} % of its peak:", machine.name, p.peak_fraction * 100.0);
    for (what, time) in [
        ("one run", p.step_seconds),
        ("in kernels and copies", p.compute_seconds),
        ("in collectives while no kernel runs", p.exposed_comm_seconds),
    ] {
        let _ = writeln!(out, "  {:>10}  {what}", milliseconds(time));
    }
    let (idle, share) = (milliseconds(p.step_seconds * p.bubble_fraction), p.bubble_fraction * 100.0);
    let _ = writeln!(out, "  {idle:>10}  in neither: a bubble of {share:.1} %");
}

fn section(out: &mut String, plan: &Plan, f: &Figures, all: bool) {
    let world = plan.header.world();
    let who = match f.ranks.len() {
        _ if world == 1 => String::new(),
        n if n == world => format!(" on each of {world} ranks"),
        n => format!(" on {} ({n} of {world}, class {})", describe::ranges(&f.ranks), f.class),
    };
    let _ = writeln!(out, "\nprogram {}{who}: {} instructions", f.program, f.instructions);
    for (what, n) in f.memory_rows() {
        let _ = writeln!(out, "  {:>10}  {what}", bytes(n));
    }
    if f.memory.sleeping_bytes > 0 {
        let asleep = bytes(f.memory.sleeping_bytes);
        let _ = writeln!(out, "  {asleep:>10}  parameters of all residencies, in the host's memory");
    }
    if f.memory.host_bytes > 0 {
        let _ = writeln!(out, "  {:>10}  the arena in the host's memory", bytes(f.memory.host_bytes));
    }
    memory::text(out, &f.peak, f.memory.arena_bytes, all);
    let _ = writeln!(out, "  {:>10}  work in one run, {} launches", flops(f.flops), f.launches);
    if world == 1 && f.traffic.is_empty() {
        return;
    }
    traffic(out, &f.traffic);
    reshard_table(out, &f.reshards, all);
}

fn traffic(out: &mut String, traffic: &[Traffic]) {
    if traffic.is_empty() {
        let _ = writeln!(out, "  {:>10}  sent: no collectives", bytes(0));
        return;
    }
    let sum = |rows: &[&Traffic]| rows.iter().fold(0u64, |sum, t| sum.saturating_add(t.bytes));
    let all: Vec<&Traffic> = traffic.iter().collect();
    let _ = writeln!(out, "  {:>10}  sent by each rank in one run", bytes(sum(&all)));
    for group in all.chunk_by(|a, b| a.group == b.group) {
        let over = format!("over {} ({} ranks)", axes(&group[0].group), group[0].ranks);
        let _ = writeln!(out, "  {:>12}  {over}", bytes(sum(group)));
        for t in group {
            let _ = writeln!(out, "  {:>14}  {} x {}", bytes(t.bytes), t.count, t.kind);
        }
    }
}

fn reshard_table(out: &mut String, reshards: &[Reshard], all: bool) {
    if reshards.is_empty() {
        return;
    }
    let _ = writeln!(out, "  reshards, by what they send:");
    let _ = writeln!(out, "  {:>6} {:>10} {:>10}  what and why", "count", "each", "total");
    let shown = if all { reshards.len() } else { TOP.min(reshards.len()) };
    for r in &reshards[..shown] {
        let what = format!("{} over {}: {}", r.kind, axes(&r.group), r.why);
        let mut lines = wrapped(&what, 68);
        lines.extend(wrapped(&r.place, 66).into_iter().map(|line| format!("  {line}")));
        let _ = write!(out, "  {:>6} {:>10} {:>10}", r.count, bytes(r.bytes_each), bytes(r.bytes));
        for (i, line) in lines.iter().enumerate() {
            let _ = writeln!(out, "{}{line}", if i == 0 { "  ".into() } else { " ".repeat(32) });
        }
    }
    let rest = &reshards[shown..];
    if !rest.is_empty() {
        let (n, sent) = rest.iter().fold((0, 0u64), |(n, sent), r| (n + r.count, sent.saturating_add(r.bytes)));
        let _ = writeln!(out, "  {n:>6} {:>10} {:>10}  in {} more rows: --all shows them", "", bytes(sent), rest.len());
    }
}

/// `fsdp x tp`: a group in the order of its positions, major axis first.
fn axes(group: &[impl std::ops::Deref<Target = str>]) -> String {
    group.iter().map(|axis| &**axis).collect::<Vec<_>>().join(" x ")
}

/// Breaks at blanks; a longer word stands alone.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
