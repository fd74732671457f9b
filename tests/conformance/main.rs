//! Whole models through the command line against diffusers and transformers: `mmc compile`, `mmrun`, compare.
//!
//! One test for each folder of `tests/goldens/{wan,qwen3,qwen3_moe,layers}`, or of another folder that `GOLDENS` names; the tolerances
//! are those of the design.

mod compare;

use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use tests::binaries::{command, model, run as finish};

use crate::compare::Tensors;

fn main() {
    let arguments = Arguments::from_args();
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens");
    let goldens = std::env::var_os("GOLDENS").map_or(committed.clone(), PathBuf::from);
    let mut cases: Vec<PathBuf> = vec![];
    for model in ["wan", "qwen3", "qwen3_moe", "layers"] {
        let folder = match std::fs::read_dir(goldens.join(model)) {
            Err(_) if goldens != committed => continue,
            folder => folder.expect("tests/goldens has a folder for each model, and one for layers"),
        };
        cases.extend(folder.map(|e| e.expect("an entry").path()).filter(|p| p.join("case.json").is_file()));
    }
    cases.sort();
    assert!(goldens != committed || cases.len() >= 30, "the golden cases are there");
    let name = |p: &Path| {
        let parts: Vec<_> = p.components().rev().take(2).map(|c| c.as_os_str().to_string_lossy()).collect();
        format!("{}::{}", parts[1], parts[0])
    };
    let trials = cases.into_iter().map(|case| Trial::test(name(&case), move || run(&case))).collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn run(case: &Path) -> Result<(), Failed> {
    let spec: Value = serde_json::from_str(&std::fs::read_to_string(case.join("case.json"))?)?;
    let text = |key: &str| spec[key].as_str().unwrap_or_default().to_owned();
    let train = text("task") == "train";
    let work = tempfile::tempdir()?;
    let plan = work.path().join("plan.bin");
    let out = work.path().join("out.safetensors");

    let mut compile = command("mmc");
    compile.arg("compile").arg(model(&text("model"))).arg("-o").arg(&plan).args([
        "--task",
        &text("task"),
        "--dtype",
        &text("dtype"),
    ]);
    if let Some(preset) = spec["preset"].as_str() {
        compile.args(["--preset", preset]);
    }
    for (name, value) in spec["set"].as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        compile.args(["--set", &format!("{name}={value}")]);
    }
    compile.args(["--batch", &spec["batch"].to_string()]);
    if let Some(parts) = spec["microbatches"].as_u64() {
        compile.args(["--microbatches", &parts.to_string()]);
    }
    if train {
        compile.args(["--optim", &text("optim")]);
    }
    finish(&mut compile)?;

    let mut execute = command("mmrun");
    execute.arg(&plan).arg("--weights").arg(case.join("weights.safetensors"));
    execute.arg("--inputs").arg(case.join("inputs.safetensors")).arg("--outputs").arg(&out);
    if train {
        execute.args(["--steps", &spec["steps"].to_string(), "--emit", "loss,grads,params"]);
    }
    finish(&mut execute)?;

    let found = Tensors::read(&out)?;
    let expected = Tensors::read(&case.join("expected.safetensors"))?;
    match text("dtype").as_str() {
        "bf16" => compare::bf16(&found, &expected),
        _ => compare::f32(&found, &expected),
    }
}
