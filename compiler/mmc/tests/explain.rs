//! `mmc explain` on hand-made plans: its text, its JSON contract, and figures that follow buffers and instructions.

use std::process::Command;

use plan::{BufferKind, Op, Plan, sample};
use serde_json::Value;

/// What `mmc explain` prints about a plan, less the hash of its file.
fn explain(plan: &Plan, words: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("plan.bin");
    let (bytes, hash) = plan.to_bytes().expect("a plan that can be written");
    std::fs::write(&path, bytes).expect("the plan");
    let output = Command::new(env!("CARGO_BIN_EXE_mmc")).arg("explain").arg(&path).args(words).output().expect("mmc");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").replace(&hash.to_string(), "HASH")
}

fn json(plan: &Plan) -> Value {
    serde_json::from_str(&explain(plan, &["--json"])).expect("JSON")
}

/// Moves one figure by changing the plan, and returns it before and after.
fn moved(pointer: &str, change: impl FnOnce(&mut Plan)) -> (u64, u64) {
    let mut plan = sample::grid();
    let figure = |plan: &Plan| json(plan).pointer(pointer).and_then(Value::as_u64).expect("a figure");
    let before = figure(&plan);
    change(&mut plan);
    (before, figure(&plan))
}

#[test]
fn one_rank() {
    insta::assert_snapshot!(explain(&sample::line(), &["--kernels"]));
}

#[test]
fn several_ranks() {
    insta::assert_snapshot!(explain(&sample::grid(), &[]));
}

#[test]
fn several_ranks_in_json() {
    insta::assert_snapshot!(explain(&sample::grid(), &["--json"]));
}

#[test]
fn lines_fit_a_terminal() {
    let mut plan = sample::grid();
    for instruction in plan.programs.iter_mut().flat_map(|p| &mut p.bodies).flat_map(|b| &mut b.instructions) {
        if let Op::Collect(collect) = &mut instruction.op {
            collect.why = "a reason of many words ".repeat(12).trim().into();
        }
    }
    plan.places[1].chain = "k1_matmul < a_long_file_name.mm:100:20 ".repeat(9).trim().into();
    let text = explain(&plan, &["--all"]);
    let longest = text.lines().map(|l| l.chars().count()).max();
    assert!(longest <= Some(100), "{text}");
}

#[test]
fn sub_axes_count_for_their_axis() {
    let mut plan = sample::grid();
    for axis in &mut plan.header.mesh.axes {
        if axis.name == "cp" {
            axis.name = "cp.ring".into();
        }
    }
    let ulysses = types::Axis { name: "cp.ulysses".into(), size: 1 };
    plan.header.mesh.axes.insert(4, ulysses);
    let mesh = &json(&plan)["mesh"];
    assert_eq!(mesh.to_string(), r#"{"pp":1,"dp":1,"fsdp":2,"cp":1,"tp":2,"cp.ring":1,"cp.ulysses":1}"#);
}

#[test]
fn a_longer_life_moves_the_peak_of_activations() {
    let (before, after) = moved("/ranks/0/activations_peak_bytes", |plan| {
        let last = plan.programs[0].bodies[0].instructions.len() as u32 - 1;
        for buffer in &mut plan.programs[0].bodies[0].buffers {
            if buffer.kind == BufferKind::Activation {
                buffer.life = plan::Life::Span { first: 0, last };
            }
        }
    });
    assert!(before < after, "{before} and {after}");
}

#[test]
fn a_buffer_that_moves_up_moves_the_peak() {
    let (before, after) = moved("/ranks/0/peak_bytes", |plan| {
        let body = &mut plan.programs[0].bodies[0];
        body.arena_bytes += 64;
        let top = body.buffers.iter_mut().max_by_key(|b| b.end()).expect("a buffer");
        top.offset += 64;
    });
    assert_eq!(after, before + 64);
}

#[test]
fn an_instruction_more_moves_work_and_traffic() {
    let twice = |which: fn(&Op) -> bool| {
        move |plan: &mut Plan| {
            let body = &mut plan.programs[0].bodies[0];
            let found = body.instructions.iter().find(|i| which(&i.op)).expect("an instruction").clone();
            body.instructions.push(found);
        }
    };
    let (before, after) = moved("/ranks/0/flops", twice(|op| matches!(op, Op::Launch(_))));
    assert_eq!(after, before + 48);
    let gather = twice(|op| matches!(op, Op::Collect(_)));
    let (before, after) = moved("/ranks/0/reshards/1/bytes", gather);
    assert_eq!(after, 2 * before);
}
