//! Lanes as text: compute on the left, what travels on the right, the runs of kernels between two events as one line.

use std::collections::BTreeMap;
use std::fmt::Write;

use plan::{Collect, EventId, LaneKind, Op, Plan};

use crate::{body, gathered};

pub fn lanes(plan: &Plan) -> String {
    let mut drawn = String::new();
    let mut line = |compute: &str, travels: &str| {
        let line = format!("{compute:36}| {travels}");
        let _ = writeln!(drawn, "{}", line.trim_end());
    };
    line("compute", "travels");
    let mut told: BTreeMap<EventId, String> = BTreeMap::new();
    let mut last: BTreeMap<usize, String> = BTreeMap::new();
    let (mut kernels, mut others) = (0, 0);
    for instruction in &body(plan).instructions {
        let lane = instruction.lane.index();
        let is_compute = body(plan).lanes[lane] == LaneKind::Compute;
        match &instruction.op {
            Op::Launch(_) => kernels += 1,
            Op::Copy { .. } | Op::Feed { .. } | Op::Emit { .. } => others += 1,
            Op::Record { event } => drop(told.insert(*event, last.get(&lane).cloned().unwrap_or_default())),
            Op::Wait { event } if is_compute && told[event].starts_with('c') => {
                work(&mut line, &mut kernels, &mut others);
                line(&format!("wait for {}", told[event]), "");
            }
            Op::Wait { .. } => {}
            Op::Collect(collect) => {
                work(&mut line, &mut kernels, &mut others);
                last.insert(lane, format!("c{}", collect.id));
                line("", &format!("c{} {}", collect.id, what(plan, collect)));
            }
        }
    }
    work(&mut line, &mut kernels, &mut others);
    drawn
}

fn work(line: &mut impl FnMut(&str, &str), kernels: &mut usize, others: &mut usize) {
    let (k, o) = (std::mem::take(kernels), std::mem::take(others));
    if k > 0 || o > 0 {
        let others = if o > 0 { format!(", {o} feeds, emits or copies") } else { String::new() };
        line(&format!("{k} kernels{others}"), "");
    }
}

/// `all_gather of 27 tensors of blocks.0`; parameters are named on one side of a gather, gradients on the other.
fn what(plan: &Plan, collect: &Collect) -> String {
    let names = collect.from.iter().chain(&collect.to).filter_map(|s| body(plan).buffer(&plan.classes[0], s.buffer));
    let names = names.map(|b| b.name.as_str()).filter(|name| name.contains('.') || name.contains('/'));
    let mut blocks: Vec<String> = names.map(|name| gathered::block(name.trim_start_matches("grad/"))).collect();
    blocks.dedup();
    let of = if blocks.is_empty() { String::new() } else { format!(" of {}", blocks.join(" and ")) };
    let tensors = if collect.from.len() == 1 { "1 tensor".into() } else { format!("{} tensors", collect.from.len()) };
    format!("{} of {tensors}{of}", collect.kind.name())
}
