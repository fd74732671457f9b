//! The predicted timeline of a plan as a Chrome trace, drawn like the one that `mmrun --trace` measures.

use cost::Machine;
use diag::Diagnostics;
use plan::{LaneKind, Plan};
use serde_json::{Value, json};

use crate::{describe, predicted};

/// The trace as text: one event a line.
pub fn text(plan: &Plan, machine: &Machine) -> Result<String, Diagnostics> {
    let mut text = String::from("[");
    for (i, event) in events(plan, machine)?.iter().enumerate() {
        text += if i == 0 { "\n" } else { ",\n" };
        text += &event.to_string();
    }
    Ok(text + "\n]\n")
}

/// A process for the first rank of each class, a track for each of its lanes; programs one after another.
fn events(plan: &Plan, machine: &Machine) -> Result<Vec<Value>, Diagnostics> {
    let mut out = vec![];
    let mut start = 0.0;
    let track = |name: &str, of: String, pid: usize, tid: usize| json!({"name": name, "ph": "M", "pid": pid, "tid": tid, "args": {"name": of}});
    let first: Vec<usize> =
        plan.classes.iter().map(|c| describe::ranks(plan, c).first().copied().unwrap_or(0)).collect();
    for (class, &pid) in first.iter().enumerate() {
        out.push(track(
            "process_name",
            format!("{} rank {pid}, predicted on {}", plan.header.model, machine.name),
            pid,
            0,
        ));
        let lanes = plan.programs.iter().filter_map(|p| p.bodies.get(class)).map(|b| &b.lanes).max_by_key(|l| l.len());
        for (tid, lane) in lanes.into_iter().flatten().enumerate() {
            out.push(track("thread_name", LaneKind::to_string(lane), pid, tid));
        }
    }
    for program in &plan.programs {
        let predictions = predicted(machine, plan, program)?;
        for ((prediction, scope), &pid) in predictions.iter().zip(plan.scopes_of(program)).zip(&first) {
            for span in &prediction.spans {
                let instruction = &scope.body.instructions[span.instruction];
                let place = plan.places.get(instruction.place.index()).map(ToString::to_string).unwrap_or_default();
                out.push(json!({
                    "name": scope.title(&instruction.op),
                    "ph": "X",
                    "pid": pid,
                    "tid": instruction.lane.index(),
                    "ts": (start + span.begin) * 1e6,
                    "dur": (span.end - span.begin) * 1e6,
                    "args": {"program": program.name, "instruction": span.instruction, "place": place},
                }));
            }
        }
        start += predictions.first().map_or(0.0, |p| p.step_seconds);
    }
    Ok(out)
}
