//! What lives when a rank's memory is fullest, by the places in the model that make it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write;

use plan::{BufferKind, Fullest, Op, Plan, Scope};
use serde_json::{Value, json};

use super::{TOP, reshards, wrapped};
use crate::quantity::bytes;

/// Tensors that differ in nothing but their bytes' place in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub kind: BufferKind,
    /// The operator or kernel that makes it, or for what is kept from step to step, whose it is.
    pub what: String,
    /// Its type on this rank; empty for scratch and where many are summed up.
    pub ty: String,
    /// In the `.mm` file, with the calls that led to it.
    pub place: String,
    pub count: u64,
    pub bytes_each: u64,
    pub bytes: u64,
}

/// When the arena is fullest, and what it holds then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peak {
    pub fullest: Fullest,
    /// The title of that instruction.
    pub at: String,
    /// The largest first.
    pub held: Vec<Held>,
}

pub fn peak(scope: Scope<'_>) -> Peak {
    let Scope { plan, class, body, .. } = scope;
    let fullest = plan::fullest(scope);
    let mut rows: BTreeMap<(BufferKind, String, String, String, u64), u64> = BTreeMap::new();
    for kind in BufferKind::ALL {
        let held = scope.present().filter(|b| b.kind == kind && !b.on_host()).map(|b| b.bytes);
        let sum = held.fold(0, u64::saturating_add);
        if sum > 0 {
            rows.insert((kind, kept(kind).into(), String::new(), String::new(), sum), 1);
        }
    }
    for (buffer, maker) in body.buffers.iter().zip(plan::makers(plan, class, body)) {
        if buffer.on_host() || !buffer.lives_at(fullest.instruction) {
            continue;
        }
        let maker = maker.and_then(|i| body.instructions.get(i));
        let what = maker.map_or_else(|| buffer.name.to_string(), |i| maker_name(plan, &i.op, &buffer.name));
        let place = maker.and_then(|i| plan.places.get(i.place.index())).map(reshards::place).unwrap_or_default();
        // Where the compiler itself made it, the place is no more than its name.
        let place = if place == what { String::new() } else { place };
        let ty = buffer.ty.as_ref().map(ToString::to_string).unwrap_or_default();
        *rows.entry((buffer.kind, what, ty, place, buffer.bytes)).or_default() += 1;
    }
    let row = |((kind, what, ty, place, bytes_each), count): ((_, _, _, _, u64), u64)| Held {
        kind,
        what,
        ty,
        place,
        count,
        bytes_each,
        bytes: bytes_each.saturating_mul(count),
    };
    let mut held: Vec<Held> = rows.into_iter().map(row).collect();
    held.sort_by_key(|h| Reverse(h.bytes));
    let at = body.instructions.get(fullest.instruction).map(|i| scope.title(&i.op)).unwrap_or_default();
    Peak { fullest, at, held }
}

fn maker_name(plan: &Plan, op: &Op, buffer: &str) -> String {
    match op {
        Op::Launch(launch) => plan.kernels.get(launch.kernel.index()).map(|k| k.symbol.to_string()),
        Op::Collect(collect) => Some(collect.kind.name().to_owned()),
        Op::Feed { .. } => Some(format!("feed {buffer}")),
        _ => None,
    }
    .unwrap_or_else(|| buffer.to_owned())
}

const fn kept(kind: BufferKind) -> &'static str {
    match kind {
        BufferKind::Parameter => "parameters",
        BufferKind::Optimizer => "the optimiser's state",
        BufferKind::State => "other state",
        other => other.name(),
    }
}

pub fn json(held: &Held) -> Value {
    json!({
        "kind": held.kind.name(),
        "what": held.what,
        "type": held.ty,
        "place": held.place,
        "count": held.count,
        "bytes_each": held.bytes_each,
        "bytes": held.bytes,
    })
}

/// The bound, how near the arena comes to it, and the largest holders.
pub fn text(out: &mut String, peak: &Peak, arena: u64, all: bool) {
    let Fullest { instruction, bytes: most } = peak.fullest;
    let over = (arena as f64 / most.max(1) as f64 - 1.0) * 100.0;
    let at = &peak.at;
    let _ = writeln!(out, "  {:>10}  at most live at once; the arena is {over:.1} % larger", bytes(most));
    let _ = writeln!(out, "  live then, at instruction {instruction} ({at}), by what makes it:");
    let _ = writeln!(out, "  {:>6} {:>10} {:>10}  what and where", "count", "each", "total");
    let shown = if all { peak.held.len() } else { TOP.min(peak.held.len()) };
    for h in &peak.held[..shown] {
        let mut lines = wrapped(&format!("{} {}", h.what, h.ty), 68);
        lines.extend(wrapped(&h.place, 66).into_iter().map(|line| format!("  {line}")));
        let _ = write!(out, "  {:>6} {:>10} {:>10}", h.count, bytes(h.bytes_each), bytes(h.bytes));
        for (i, line) in lines.iter().enumerate() {
            let _ = writeln!(out, "{}{line}", if i == 0 { "  ".into() } else { " ".repeat(32) });
        }
    }
    let rest = &peak.held[shown..];
    if !rest.is_empty() {
        let (n, sum) = rest.iter().fold((0, 0u64), |(n, sum), h| (n + h.count, sum.saturating_add(h.bytes)));
        let _ = writeln!(out, "  {n:>6} {:>10} {:>10}  in {} more rows: --all shows them", "", bytes(sum), rest.len());
    }
}
