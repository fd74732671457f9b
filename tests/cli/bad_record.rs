//! A record that cannot be used ends a run between two steps: what was trained before it is saved.

use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use tests::binaries::{command, run};

use crate::compile;

/// Six records of the tiny Qwen3, one with an id that no row of the embedding has.
fn records(folder: &Path, bad: usize) {
    fs::create_dir(folder).expect("a folder");
    for record in 0..6 {
        let id = |i: usize| if (record, i) == (bad, 5) { 500 } else { ((i * 7 + record) % 128) as i64 };
        let bytes: Vec<u8> = (0..16).flat_map(|i| id(i).to_le_bytes()).collect();
        let labels: Vec<u8> = (0..16i64).flat_map(i64::to_le_bytes).collect();
        let view = |bytes| TensorView::new(Dtype::I64, vec![16], bytes).expect("a view");
        let tensors = [("ids", view(&bytes)), ("labels", view(&labels))];
        serialize_to_file(tensors, None, &folder.join(format!("{record}.safetensors"))).expect("written");
    }
}

#[test]
fn a_bad_record_costs_no_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let here = folder.path();
    let mut saved = 0;
    for mesh in ["", "--dp 2 --batch 2"] {
        let batch = if mesh.is_empty() { "--batch 1" } else { "" };
        let plan = compile(here, "plan.bin", &format!("qwen3.mm --preset tiny {batch} {mesh}"));
        // One of two records is not the first that is taken.
        for bad in [0, 1] {
            for name in ["data", "c", "whole"] {
                let _ = fs::remove_dir_all(here.join(name));
            }
            records(&here.join("data"), bad);
            let mmrun = |words: &str| {
                let mut c = command("mmrun");
                c.current_dir(here).arg(&plan).args(words.split_whitespace());
                c
            };
            let output = mmrun("--data data --steps 6 --save c").output().expect("starts");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains(&format!("data/{bad}.safetensors: `ids`")) && said.contains("500"), "{said}");
            let Ok(latest) = fs::read_to_string(here.join("c/latest")) else { continue };
            let (latest, step) = (latest.trim(), latest.trim().trim_start_matches("step-").parse::<u64>());
            let step = step.expect("a step");
            assert!(said.contains(&format!("saved c/{latest}")) && said.contains("go on with"), "{said}");
            run(&mut mmrun(&format!("--data data --steps {step} --save whole"))).expect("runs as far");
            for file in ["model.safetensors", "state/optimizer.safetensors"] {
                let read = |run: &str| fs::read(here.join(run).join(latest).join(file)).expect("a checkpoint");
                assert!(read("c") == read("whole"), "{mesh}: {file} of step {step}");
            }
            saved += 1;
        }
    }
    assert!(saved > 0, "a run got to its second step");
}
