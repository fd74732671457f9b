//! Predicted step times beside times that others measured on Ascend.
//!
//! The measurements are MindSpeed-MM's: steps of its own tests (`tests/st/baseline_results`) and its table of published
//! throughput (`docs/zh/pytorch/supported_models.md`). One figure of the machines, the efficiency of products, is chosen so
//! that the first row comes out, with the other rows in view: this holds the model together, and is no blind test. Which
//! 910B the third row ran on is not published; 910B3 is assumed.

mod stages;

use std::fmt::Write;

use serde_json::Value;
use tests::binaries::{command, model, run};

struct Measurement {
    name: &'static str,
    preset: &'static str,
    layers: u32,
    /// Frames of the latent; all are 480x832.
    frames: u32,
    machine: &'static str,
    fsdp: u32,
    seconds: f64,
}

const MEASURED: [Measurement; 4] = [
    Measurement {
        name: "Wan2.1-T2V, 8 layers, 81 frames",
        preset: "wan2.1-t2v-14b",
        layers: 8,
        frames: 21,
        machine: "ascend-910b3",
        fsdp: 4,
        seconds: 10.796,
    },
    // Its videos have 49 frames at most.
    Measurement {
        name: "Wan2.2-I2V, 10 layers, 49 frames",
        preset: "i2v-a14b",
        layers: 10,
        frames: 13,
        machine: "ascend-910b3",
        fsdp: 4,
        seconds: 6.608,
    },
    Measurement {
        name: "Wan2.1-T2V-14B, 81 frames",
        preset: "wan2.1-t2v-14b",
        layers: 40,
        frames: 21,
        machine: "ascend-910b3",
        fsdp: 8,
        seconds: 8.0 / 0.160,
    },
    Measurement {
        name: "Wan2.2-T2V-A14B, 49 frames",
        preset: "t2v-a14b",
        layers: 40,
        frames: 13,
        machine: "ascend-910c",
        fsdp: 16,
        seconds: 16.0 / 0.710,
    },
];

/// The first entry of `mmc explain --json`.
fn predicted(m: &Measurement) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = folder.path().join("plan.bin");
    let Measurement { preset, layers, frames, machine, fsdp, .. } = m;
    let words = format!(
        "--preset {preset} --set LAYERS={layers} --set F={frames} --set H=60 --set W=104 --set S=512 --dtype bf16 \
         --target none --machine {machine} --grads resident --optim clip=1.0 --recompute full --fsdp {fsdp}"
    );
    let mut compile = command("mmc");
    compile.arg("compile").arg(model("wan2.2.mm")).args(words.split_whitespace()).arg("-o").arg(&plan);
    run(&mut compile).expect("compiles");
    let output = run(command("mmc").arg("explain").arg(&plan).arg("--json")).expect("explains");
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["machine"], *machine);
    json["ranks"][0].clone()
}

#[test]
fn steps_are_within_15_percent_of_what_was_measured() {
    let mut table = String::new();
    let mut speeds = vec![];
    for m in &MEASURED {
        let found = predicted(m);
        let number = |key: &str| found[key].as_f64().unwrap_or_else(|| panic!("no `{key}` in {found}"));
        let step = number("step_seconds");
        let off = (step / m.seconds - 1.0) * 100.0;
        let _ = writeln!(
            table,
            "{:32} {:12} x {:2}  measured {:5.1} s  predicted {step:5.1} s  {off:+3.0} %  exposed {:3.1} %  of peak {:2.0} %",
            m.name,
            m.machine,
            m.fsdp,
            m.seconds,
            number("exposed_comm_seconds") / step * 100.0,
            number("peak_fraction") * 100.0,
        );
        assert!(off.abs() < 15.0, "{table}");
        speeds.push((number("flops") / step, number("flops") / m.seconds));
    }
    println!("{table}");
    // FLOP in a second of the two published models: their order is right.
    assert_eq!(speeds[2].0 < speeds[3].0, speeds[2].1 < speeds[3].1, "{table}");
}
