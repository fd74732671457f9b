//! Things that a plan does so many times: traffic, collectives with their reasons, kernels. Equal ones are counted together.

use std::collections::BTreeMap;

use plan::{Body, Op, Plan, Traffic};

use super::listed::Listed;
use super::quantity::Row;
use crate::explain::reshards::Reshard;
use crate::quantity::{bytes, flops};

pub fn traffic(a: &[Traffic], b: &[Traffic]) -> Vec<Row> {
    let mut sent: BTreeMap<(String, &str), [u64; 2]> = BTreeMap::new();
    for (side, traffic) in [a, b].into_iter().enumerate() {
        for t in traffic {
            let group = t.group.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x ");
            sent.entry((group, t.kind)).or_default()[side] += t.bytes;
        }
    }
    let row =
        |((group, kind), [a, b]): ((String, &str), [u64; 2])| Row::bytes(format!("sent by {kind} over {group}"), a, b);
    sent.into_iter().map(row).collect()
}

/// What is sent most comes first.
pub fn reshards(a: &[Reshard], b: &[Reshard]) -> Vec<Listed> {
    let mut found: BTreeMap<(String, &str), [(u64, u64); 2]> = BTreeMap::new();
    for (side, reshards) in [a, b].into_iter().enumerate() {
        for r in reshards {
            let what = format!("{} over {}: {}", r.kind, r.group.join(" x "), r.why);
            let (count, sent) = &mut found.entry((what, &r.place)).or_default()[side];
            *count += r.count;
            *sent = sent.saturating_add(r.bytes);
        }
    }
    let mut rows: Vec<_> = found.into_iter().filter(|(_, [a, b])| a != b).collect();
    rows.sort_by_key(|(_, [a, b])| std::cmp::Reverse(a.1.max(b.1)));
    rows.into_iter()
        .map(|((what, place), [a, b])| {
            let side = |(count, sent): (u64, u64)| format!("{count} x, {}", bytes(sent));
            Listed::new(a.0 > 0, b.0 > 0, format!("{}: {what}", sides(a.0, b.0, side(a), side(b))), place.to_owned())
        })
        .collect()
}

/// Kernels by name and work; the numbers in their symbols are left out, as they follow from the order of the graph alone.
pub fn kernels((plan_a, body_a): (&Plan, &Body), (plan_b, body_b): (&Plan, &Body)) -> Vec<Listed> {
    let mut found: BTreeMap<(String, u64, u64), [u64; 2]> = BTreeMap::new();
    for (side, (plan, body)) in [(plan_a, body_a), (plan_b, body_b)].into_iter().enumerate() {
        for instruction in &body.instructions {
            let Op::Launch(launch) = &instruction.op else { continue };
            let Some(kernel) = plan.kernels.get(launch.kernel.index()) else { continue };
            let name = name(&kernel.symbol).to_owned();
            found.entry((name, kernel.flops, kernel.bytes)).or_default()[side] += 1;
        }
    }
    let mut rows: Vec<_> = found.into_iter().filter(|(_, [a, b])| a != b).collect();
    rows.sort_by_key(|((_, work, _), [a, b])| std::cmp::Reverse(work.saturating_mul(*a.max(b))));
    rows.into_iter()
        .map(|((name, work, moved), [a, b])| {
            let times = sides(a, b, format!("{a} x"), format!("{b} x"));
            Listed::new(
                a > 0,
                b > 0,
                format!("{times}: {name} of {}, {} moved", flops(work), bytes(moved)),
                String::new(),
            )
        })
        .collect()
}

/// `matmul_add` of `k12_matmul_add`.
pub fn name(symbol: &str) -> &str {
    match symbol.split_once('_') {
        Some((number, name)) if number.strip_prefix('k').is_some_and(|n| n.parse::<u32>().is_ok()) => name,
        _ => symbol,
    }
}

fn sides(a: u64, b: u64, text_a: String, text_b: String) -> String {
    match (a, b) {
        (0, _) => text_b,
        (_, 0) => text_a,
        _ => format!("{text_a} -> {text_b}"),
    }
}
