//! The timeline that `mmc timeline` predicts beside the one that `mmrun --trace` measures: each lane does the same in the
//! same order, and what ranks exchange runs beside kernels in both.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tests::binaries::{command, model, run};

/// What took time on rank 0, by lane.
type Lanes = BTreeMap<u64, Vec<Event>>;

struct Event {
    instruction: u64,
    begin: f64,
    end: f64,
    meets: bool,
}

/// Of one step, or of a prediction.
fn lanes(file: &Path, step: Option<u64>) -> Lanes {
    let events: Vec<Value> = serde_json::from_slice(&std::fs::read(file).expect("a timeline")).expect("JSON");
    let mut lanes = Lanes::new();
    for e in events.iter().filter(|e| e["ph"] == "X" && e["pid"] == 0 && e["args"]["step"].as_u64() == step) {
        let name = e["name"].as_str().expect("a name");
        if name.starts_with("wait ") || name.starts_with("record ") {
            continue;
        }
        let begin = e["ts"].as_f64().expect("a time");
        lanes.entry(e["tid"].as_u64().expect("a lane")).or_default().push(Event {
            instruction: e["args"]["instruction"].as_u64().expect("an instruction"),
            begin,
            end: begin + e["dur"].as_f64().expect("a duration"),
            meets: name.contains("all_") || name.contains("reduce_scatter"),
        });
    }
    for lane in lanes.values_mut() {
        lane.sort_by(|a, b| a.begin.total_cmp(&b.begin).then(a.instruction.cmp(&b.instruction)));
    }
    lanes
}

/// Collectives during which a kernel of the first lane runs.
fn hidden(lanes: &Lanes) -> usize {
    let kernels = &lanes[&0];
    let beside = |c: &&Event| kernels.iter().any(|k| k.begin < c.end && c.begin < k.end);
    lanes.iter().filter(|(lane, _)| **lane != 0).flat_map(|(_, l)| l).filter(|e| e.meets).filter(beside).count()
}

#[test]
fn lanes_do_what_was_predicted_in_that_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let [plan, trace, timeline] = ["plan.bin", "trace.json", "timeline.json"].map(|name| folder.path().join(name));
    for mesh in
        ["--fsdp 2", "--fsdp 2 --tp 2 --recompute full", "--cp 2 --fsdp 2 --dtype bf16", "--pp 2 --microbatches 4"]
    {
        let flags = format!("--preset tiny --set LAYERS=4 --batch 8 {mesh}");
        let mut compile = command("mmc");
        compile.arg("compile").arg(model("wan2.2.mm")).args(flags.split_whitespace()).arg("-o").arg(&plan);
        run(&mut compile).expect("compiles");
        run(command("mmrun").arg(&plan).args(["--steps", "2", "--trace"]).arg(&trace)).expect("runs");
        let mut predict = command("mmc");
        predict.arg("timeline").arg(&plan).args(["--machine", "ascend-910b3", "-o"]).arg(&timeline);
        run(&mut predict).expect("predicts");
        let (measured, predicted) = (lanes(&trace, Some(1)), lanes(&timeline, None));
        assert!(measured.keys().eq(predicted.keys()), "{mesh}: the same lanes");
        for (lane, predicted) in &predicted {
            let order = |events: &[Event]| events.iter().map(|e| e.instruction).collect::<Vec<_>>();
            assert_eq!(order(&measured[lane]), order(predicted), "{mesh}: lane {lane}");
        }
        if mesh.contains("fsdp") {
            // Whether they do so here depends on the cores of this machine.
            assert!(hidden(&predicted) > 0, "{mesh}: collectives run beside kernels");
        }
    }
}
