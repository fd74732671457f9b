//! Plans for every level of x86-64 that the CPU target has: they compile and hold on any machine, and run where the
//! machine has the level.

use std::path::Path;

use plan::Plan;
use tests::binaries::{command, model, run};

const LEVELS: [&str; 3] = ["x86-64-v3", "x86-64-v4", "x86-64-v4-bf16"];

const MODELS: [&str; 7] = [
    "wan2.2.mm --preset tiny",
    "wan2.2.mm --preset tiny --dtype bf16",
    "wan2.2.mm --preset tiny --dtype bf16 --tp 2 --fsdp 2 --batch 2",
    "wan2.2.mm --preset tiny --pp 2 --microbatches 2 --batch 2",
    "wan2.2.mm --preset tiny --set LAYERS=4 --recompute auto --offload auto --memory 1MiB",
    "qwen3.mm --preset tiny --batch 2",
    "qwen3.mm --preset tiny --batch 2 --dtype bf16 --cp 2",
];

/// The loss of two steps, or none where this machine has not the level that the plan is for.
fn losses(plan: &Path, folder: &Path) -> Option<Vec<f32>> {
    let out = folder.join("out.safetensors");
    let mut mmrun = command("mmrun");
    mmrun.arg(plan).args(["--steps", "2", "--emit", "loss", "--outputs"]).arg(&out);
    let output = mmrun.output().expect("mmrun");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        assert!(said.contains("compile the plan for this machine with `mmc compile --cpu native`"), "{said}");
        return None;
    }
    let bytes = std::fs::read(&out).expect("the outputs");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let loss = file.tensor("loss").expect("a loss").data().to_vec();
    Some(loss.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

#[test]
fn plans_for_all_levels() {
    let folder = tempfile::tempdir().expect("a folder");
    for words in MODELS {
        let tolerance = if words.contains("bf16") { 1e-3 } else { 1e-6 };
        let mut first: Option<Vec<f32>> = None;
        for level in LEVELS {
            let path = folder.path().join("plan.bin");
            let mut flags = words.split_whitespace();
            let mut mmc = command("mmc");
            mmc.arg("compile").arg(model(flags.next().expect("a model"))).args(flags);
            run(mmc.args(["--cpu", level, "-o"]).arg(&path)).expect("compiles");
            let (plan, _) = Plan::from_bytes(&std::fs::read(&path).expect("a plan")).expect("a plan");
            plan::verify(&plan).unwrap_or_else(|found| panic!("{words} {level}: {found:?}"));
            assert!(plan.header.device == level && !plan.object.is_empty(), "{words} {level}");
            let Some(found) = losses(&path, folder.path()) else { continue };
            let expected = first.get_or_insert_with(|| found.clone());
            for (a, b) in expected.iter().zip(&found) {
                assert!((a - b).abs() <= tolerance * a.abs(), "{words} {level}: {found:?} and not {expected:?}");
            }
        }
    }
}
