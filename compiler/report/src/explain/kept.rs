//! What became of the values that wait for the backward, as a table and as JSON.

use std::fmt::Write;

use plan::{Body, Kept, Plan, Way};
use serde_json::{Value, json};

use super::wrapped;
use crate::quantity::{bytes, milliseconds};

/// Rows without `--all`.
const TOP: usize = 12;

/// Nothing where nobody asked the compiler to choose.
pub fn table(out: &mut String, plan: &Plan, body: &Body, all: bool) {
    if body.kept.is_empty() {
        return;
    }
    let _ = writeln!(out, "  values that wait for the backward, by what they hold, or would, at the peak:");
    for way in [Way::Offloaded, Way::Recomputed, Way::Kept] {
        let (held, seconds) = sum(body, way);
        let price = match way {
            Way::Kept => "would take at least",
            Way::Recomputed => "of computing them again take",
            Way::Offloaded => "of copies take, beside the work,",
        };
        let _ = writeln!(out, "  {:>10}  {}: {price} {}", bytes(held), way.name(), milliseconds(seconds));
    }
    let _ = writeln!(out, "  {:>6} {:>10} {:>10}  what and where", "count", "bytes", "time");
    let shown = if all { body.kept.len() } else { TOP.min(body.kept.len()) };
    for kept in &body.kept[..shown] {
        let what = format!("{} {} at {}", kept.way.name(), kept.what, place(plan, kept));
        let _ = write!(out, "  {:>6} {:>10} {:>10}", kept.count, bytes(kept.bytes), milliseconds(kept.seconds));
        for (i, line) in wrapped(&what, 68).into_iter().enumerate() {
            let _ = writeln!(out, "{}{line}", if i == 0 { "  ".into() } else { " ".repeat(34) });
        }
    }
    if shown < body.kept.len() {
        let _ = writeln!(out, "  {:>6} more rows: --all shows them", body.kept.len() - shown);
    }
}

/// Bytes at the peak and seconds in a step.
fn sum(body: &Body, way: Way) -> (u64, f64) {
    let rows = body.kept.iter().filter(|kept| kept.way == way);
    rows.fold((0, 0.0), |(held, seconds), kept| (held + kept.bytes, seconds + kept.seconds))
}

pub fn json(plan: &Plan, body: &Body) -> Value {
    let row = |kept: &Kept| {
        json!({
            "what": kept.what,
            "place": place(plan, kept),
            "way": kept.way.name(),
            "count": kept.count,
            "bytes": kept.bytes,
            "seconds": kept.seconds,
        })
    };
    body.kept.iter().map(row).collect()
}

fn place(plan: &Plan, kept: &Kept) -> String {
    plan.places.get(kept.place.index()).map(|p| format!("{}:{}:{}", p.file, p.line, p.column)).unwrap_or_default()
}
