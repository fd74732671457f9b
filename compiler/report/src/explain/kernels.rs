//! The kernels of a program: their work, how often each runs, the time that is predicted on a machine or that its limits
//! allow, and the time that a trace shows.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write;

use cost::Machine;
use plan::{Body, Class, Kernel, Op, Plan};
use serde_json::{Value, json};

use super::measured::Measured;
use crate::quantity::{bytes, count};

/// What a machine does, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits<'a> {
    /// Its figures, which predict times better than its limits.
    pub machine: Option<&'a Machine>,
    /// FLOP in a second, at most.
    pub peak: Option<f64>,
    /// Bytes in a second, to and from memory, at most.
    pub bandwidth: Option<f64>,
}

/// One kernel, all its runs in a step together.
struct Row<'a> {
    kernel: &'a Kernel,
    runs: u64,
    flops: u64,
    bytes: u64,
    /// Seconds.
    predicted: Option<f64>,
    measured: Option<f64>,
}

impl Row<'_> {
    /// Of the peak, while it ran.
    fn share(&self, limits: Limits<'_>) -> Option<f64> {
        Some(self.flops as f64 / self.measured? / limits.peak?)
    }
}

fn rows<'a>(
    plan: &'a Plan,
    class: &Class,
    body: &Body,
    limits: Limits<'_>,
    measured: Option<&Measured>,
) -> Vec<Row<'a>> {
    let mut times: BTreeMap<usize, (u64, f64)> = BTreeMap::new();
    for instruction in &body.instructions {
        if let Op::Launch(launch) = &instruction.op {
            let (runs, seconds) = times.entry(launch.kernel.index()).or_default();
            *runs += 1;
            *seconds += limits.machine.map_or(0.0, |m| cost::seconds_of_launch(m, plan, class, body, launch));
        }
    }
    let mut rows: Vec<Row<'a>> = times
        .into_iter()
        .filter_map(|(index, (runs, seconds))| {
            let kernel = plan.kernels.get(index)?;
            let (flops, bytes) = (kernel.flops.saturating_mul(runs), kernel.bytes.saturating_mul(runs));
            let predicted = match (limits.machine, limits.peak, limits.bandwidth) {
                (Some(_), _, _) => Some(seconds),
                (_, Some(peak), Some(bandwidth)) => Some((flops as f64 / peak).max(bytes as f64 / bandwidth)),
                _ => None,
            };
            let measured = measured.and_then(|m| m.seconds(&kernel.symbol));
            Some(Row { kernel, runs, flops, bytes, predicted, measured })
        })
        .collect();
    let order = |row: &Row<'_>| row.measured.map(|seconds| (seconds * 1e9) as u64).unwrap_or_default();
    rows.sort_by_key(|row| (Reverse(order(row)), Reverse(row.flops), row.kernel.symbol.clone()));
    rows
}

pub fn table(
    out: &mut String,
    plan: &Plan,
    (class, body): (&Class, &Body),
    limits: Limits<'_>,
    measured: Option<&Measured>,
) {
    let rows = rows(plan, class, body, limits, measured);
    let predicts = rows.iter().any(|row| row.predicted.is_some());
    let mut head = format!("  {:>8} {:>10} {:>10} {:>6}", "FLOP", "traffic", "scratch", "runs");
    if predicts {
        let _ = write!(head, " {:>10}", "predicted");
    }
    if measured.is_some() {
        let _ = write!(head, " {:>10} {:>8}", "measured", "GFLOP/s");
        if limits.peak.is_some() {
            let _ = write!(head, " {:>7}", "of peak");
        }
    }
    let _ = writeln!(out, "{head}  kernel");
    let absent = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    for row in &rows {
        let (work, moved) = (count(row.flops), bytes(row.bytes));
        let _ = write!(out, "  {work:>8} {moved:>10} {:>10} {:>6}", bytes(row.kernel.workspace), row.runs);
        let milliseconds = |seconds: f64| format!("{:.2} ms", seconds * 1e3);
        if predicts {
            let _ = write!(out, " {:>10}", absent(row.predicted.map(milliseconds)));
        }
        if measured.is_some() {
            let rate = row.measured.map(|seconds| format!("{:.1}", row.flops as f64 / seconds * 1e-9));
            let _ = write!(out, " {:>10} {:>8}", absent(row.measured.map(milliseconds)), absent(rate));
            if limits.peak.is_some() {
                let _ = write!(out, " {:>7}", absent(row.share(limits).map(|share| format!("{:.0} %", share * 100.0))));
            }
        }
        let _ = writeln!(out, "  {}", row.kernel.symbol);
    }
}

pub fn json(plan: &Plan, (class, body): (&Class, &Body), limits: Limits<'_>, measured: Option<&Measured>) -> Value {
    let rows = rows(plan, class, body, limits, measured);
    let row = |row: &Row<'_>| {
        json!({
            "kernel": row.kernel.symbol.to_string(),
            "runs": row.runs,
            "flops": row.flops,
            "products": row.kernel.products.saturating_mul(row.runs),
            "elementwise": row.kernel.elementwise.saturating_mul(row.runs),
            "bytes": row.bytes,
            "workspace_bytes": row.kernel.workspace,
            "predicted_seconds": row.predicted,
            "measured_seconds": row.measured,
            "share_of_peak": row.share(limits),
        })
    };
    rows.iter().map(row).collect()
}
