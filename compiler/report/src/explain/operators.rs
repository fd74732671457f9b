//! What became of the operators of an Ascend plan: which operators of CANN, and why some were taken apart.

use std::collections::BTreeMap;
use std::fmt::Write;

use plan::operators::{Report, Row};
use plan::{Archive, BlobKind, Body, Op, Plan};

use super::wrapped;

/// The rows of one program; none for other targets.
pub fn rows(plan: &Plan, body: &Body) -> Vec<Row> {
    let archive = Archive::from_bytes(&plan.object).unwrap_or_default();
    let report = archive.blobs.iter().find(|b| b.kind == BlobKind::Report);
    let Some(report) = report.and_then(|b| serde_json::from_slice::<Report>(&b.bytes).ok()) else { return vec![] };
    let mut times: BTreeMap<&str, u64> = BTreeMap::new();
    for instruction in &body.instructions {
        if let Op::Launch(launch) = &instruction.op
            && let Some(kernel) = plan.kernels.get(launch.kernel.index())
        {
            *times.entry(kernel.symbol.as_str()).or_default() += 1;
        }
    }
    report.merged(|kernel| times.get(kernel).copied().unwrap_or(0))
}

pub fn table(out: &mut String, plan: &Plan, body: &Body) {
    let rows = rows(plan, body);
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(out, "  operators, and what CANN runs for them:");
    for row in &rows {
        let mut lines = wrapped(&row.cann.join(", "), 58);
        if let Some(reason) = &row.reason {
            lines.extend(wrapped(&format!("taken apart: {reason}"), 58));
        }
        let _ = write!(out, "  {:>6} {:<22}", row.count, format!("{} {}", row.op, row.dtype));
        for (i, line) in lines.iter().enumerate() {
            let _ = writeln!(out, "{} {line}", if i == 0 { "".into() } else { " ".repeat(31) });
        }
    }
}
