//! What `--memory`, `--recompute`, `--offload` and `--overlap` promise: plans that fit, and the same bits.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::binaries::{command, run};

use super::{compile, explain, mmc, train};

/// A plan that needs more than it is given is refused, and the message says by how much, what holds the most and what would fit;
/// what it says would fit does.
#[test]
fn a_plan_that_does_not_fit_is_refused_with_the_ways_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let words = "wan2.2.mm --preset tiny --set LAYERS=4 --batch 4 --target none";
    let refused = |memory: &str| {
        let plan = folder.path().join("plan.bin");
        let output = mmc(&format!("compile {words} --memory {memory}")).arg("-o").arg(&plan).output().expect("mmc");
        assert!(!output.status.success() && !plan.exists(), "{memory}");
        String::from_utf8(output.stderr).expect("text")
    };
    let said = refused("1MiB");
    assert!(said.contains("error: `train` needs 1.8 MiB and --memory gives 1.0 MiB: 8"), "{said}");
    assert!(said.contains("KiB too much") && said.contains("the optimiser's state"), "{said}");
    assert!(said.contains("dit.mm:145:"), "the largest activations are the feed-forward network's: {said}");
    let fits = |line: &&str| line.trim_start().starts_with("--") && line.contains("a step of");
    let ways: Vec<&str> = said.lines().filter(fits).collect();
    assert!(ways.iter().any(|way| way.trim().starts_with("--recompute full ")), "{said}");
    for way in ways {
        let flags: Vec<&str> = way.split_whitespace().take(2).collect();
        compile(folder.path(), "fits", &format!("{words} --memory 1MiB {}", flags.join(" ")));
    }
    let said = refused("200KiB");
    assert!(said.contains("of the changes that were tried none is enough"), "{said}");
    let said = refused("1KiB");
    assert!(said.contains("no changes were tried: the operands of "), "{said}");
    // What waits in the host's memory is not among it.
    let words = format!("{words} --recompute auto --offload auto --memory 100KiB");
    let output = mmc(&format!("compile {words}")).arg("-o").arg(folder.path().join("plan.bin")).output().expect("mmc");
    let said = String::from_utf8(output.stderr).expect("text");
    let size = |line: &str| -> Option<f64> {
        let mut words = line.split_whitespace();
        let number: f64 = words.next()?.parse().ok()?;
        let unit = ["B", "KiB", "MiB"].iter().position(|unit| Some(*unit) == words.clone().next())?;
        Some(number * 1024f64.powi(unit as i32))
    };
    let need = said.split_once("needs ").and_then(|(_, rest)| size(rest)).expect("a size");
    let lines = said.lines().skip_while(|line| !line.contains("at the peak")).take_while(|line| !line.contains("help"));
    let held: f64 = lines.filter_map(size).sum();
    assert!((0.8 * need..=1.02 * need).contains(&held), "{held} of {need}: {said}");
    let said = refused("lots");
    assert!(said.contains("expected a size such as 64GiB"), "{said}");
}

/// From all that a plan would like down to the least that there is a plan for, in twenty steps: each plan fits, and none is
/// predicted to be faster than one with more.
#[test]
fn memory_is_honoured_and_paid_for() {
    let folder = tempfile::tempdir().expect("a folder");
    // What is left of the most, in percent: parameters and what they need stay.
    let cases = [
        ("wan2.2.mm --preset tiny --set LAYERS=4 --batch 4", "--recompute auto --offload auto", 80),
        ("wan2.2.mm --preset tiny --set LAYERS=4 --batch 4 --tp 2 --fsdp 2", "--recompute auto --offload auto", 80),
        ("wan2.2.mm --preset tiny --set LAYERS=4 --batch 4 --pp 2 --microbatches 4", "--recompute auto", 80),
        ("qwen3.mm --preset tiny --set LAYERS=4 --batch 4 --microbatches 2", "--recompute auto", 86),
    ];
    for (model, ways, percent) in cases {
        let words = format!("{model} {ways} --target none --machine");
        let machine = machine_without_communicators(folder.path());
        let plan = |memory: u64| {
            let path = folder.path().join("plan.bin");
            let words = format!("compile {words} {} --memory {memory}", machine.display());
            let output = mmc(&words).arg("-o").arg(&path).output().expect("mmc");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            output.status.success().then(|| figures(&path, &machine)).ok_or(said)
        };
        let (most, mut before) = plan(1 << 40).expect("all that it would like");
        // The least is looked for by halves.
        let (mut least, mut none) = (most, 0);
        while least - none > most / 50 {
            let middle = none.midpoint(least);
            match plan(middle) {
                Ok((need, _)) => least = need.min(middle),
                Err(said) => {
                    assert!(said.contains("too much"), "{said}");
                    none = middle;
                }
            }
        }
        assert!(least <= most * percent / 100, "{words}: {least} of {most}");
        for step in 0..20 {
            let memory = most - (most - least) * step / 19;
            let (need, seconds) = plan(memory).unwrap_or_else(|said| panic!("{words} {memory}: {said}"));
            assert!(need <= memory, "{words}: {need} of {memory}");
            assert!(seconds >= before * (1.0 - 1e-9), "{words}: {seconds} after {before} with {memory}");
            before = seconds;
        }
    }
}

/// Communicators take memory that small models do not.
fn machine_without_communicators(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compiler/cost/machines/ascend-910b3.toml");
    let text = std::fs::read_to_string(source).expect("a machine");
    let lines = text.lines().filter(|line| !line.starts_with("communicator_mib")).map(|line| match line {
        line if line.starts_with("name") => "name = \"bare\"",
        line => line,
    });
    let path = folder.join("bare.toml");
    std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).expect("written");
    path
}

/// The largest arena, and the predicted seconds of a step.
fn figures(plan: &Path, machine: &Path) -> (u64, f64) {
    let output =
        run(command("mmc").arg("explain").arg(plan).arg("--json").arg("--machine").arg(machine)).expect("explains");
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let ranks = json["ranks"].as_array().expect("ranks");
    let arena = ranks.iter().filter_map(|rank| rank["arena_bytes"].as_u64()).max();
    (arena.expect("an arena"), ranks[0]["step_seconds"].as_f64().expect("seconds"))
}

/// What is left in the host's memory or computed again, whatever of it memory asks for, has the same bits, and each plan is what
/// it says: some of it is computed again, or waits in the host's memory, and less is on the device.
#[test]
fn memory_changes_no_bit() {
    let folder = tempfile::tempdir().expect("a folder");
    let models = [
        ("wan2.2.mm --preset tiny --batch 4 --set LAYERS=4", 90),
        ("wan2.2.mm --preset tiny --batch 4 --set LAYERS=4 --dtype bf16 --tp 2 --fsdp 2", 90),
        ("wan2.2.mm --preset tiny --batch 8 --set LAYERS=4 --pp 2 --microbatches 4", 95),
        ("qwen3.mm --preset tiny --batch 4 --set LAYERS=4 --microbatches 2 --cp 2", 97),
    ];
    for (model, percent) in models {
        let kept = compile(folder.path(), "kept", model);
        let (bits, all) = (train(&kept, folder.path(), "--steps 2"), explain(&kept)["ranks"][0].clone());
        let arena = all["arena_bytes"].as_u64().expect("bytes");
        for ways in [
            format!("--recompute auto --memory {}", arena * percent / 100),
            format!("--recompute auto --offload auto --memory {}", arena * percent / 100),
            "--offload activations".into(),
            "--offload optimizer".into(),
            "--recompute full --offload optimizer".into(),
        ] {
            let plan = compile(folder.path(), "plan", &format!("{model} {ways}"));
            assert!(train(&plan, folder.path(), "--steps 2 --threads 2") == bits, "{model} {ways}: other bits");
            let of = &explain(&plan)["ranks"][0];
            assert!(of["arena_bytes"].as_u64() < Some(arena), "{model} {ways}");
            let rows = of["kept"].as_array().expect("rows");
            assert!(rows.iter().any(|row| row["way"] != "kept" && row["bytes"].as_u64() > Some(0)), "{model} {ways}");
            let beside = of["host_bytes"].as_u64().expect("bytes");
            assert_eq!(beside > 0, rows.iter().any(|row| row["way"] == "offloaded"), "{model} {ways}");
        }
    }
}

/// Products and exchanges in pieces have the same bits as whole ones, and `mmc explain` says which they are.
#[test]
fn pieces_change_no_bit() {
    let folder = tempfile::tempdir().expect("a folder");
    for (model, count) in [
        ("wan2.2.mm --preset tiny --tp 2", 4),
        ("wan2.2.mm --preset tiny --batch 2 --dtype bf16 --tp 2 --cp 2", 2),
        ("wan2.2.mm --preset tiny --batch 4 --tp 2 --pp 2 --microbatches 2", 2),
        ("wan2.2.mm --preset tiny --batch 2 --tp 2 --fsdp 2 --recompute full", 3),
        ("qwen3.mm --preset tiny --batch 2 --tp 2", 2),
    ] {
        // Nothing is gained by pieces of tensors as small as these.
        let whole = compile(folder.path(), "whole", model);
        assert!(!explain(&whole)["ranks"][0]["reshards"].to_string().contains(" pieces"), "{model}");
        let bits = train(&whole, folder.path(), "--steps 2");
        let plan = compile(folder.path(), "plan", &format!("{model} --overlap {count}"));
        assert!(train(&plan, folder.path(), "--steps 2 --threads 2") == bits, "{model} in {count}: other bits");
        let said = explain(&plan)["ranks"][0]["reshards"].to_string();
        assert!(said.contains(&format!(", in {count} pieces")), "{model}: {said}");
    }
    let refused = mmc("compile wan2.2.mm --overlap some").output().expect("mmc");
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("expected auto, off, or a number of pieces from 2 to 64")
    );
}

/// Work that waits for exchanges to hide holds its operands for longer: where memory is short, it is not put off.
#[test]
fn a_model_of_full_size_fits_what_is_given() {
    let folder = tempfile::tempdir().expect("a folder");
    let size = "wan2.2.mm --preset t2v-a14b --set H=90 --set W=160 --tp 4 --pp 2 --target none";
    let plan = compile(folder.path(), "plan", &format!("{size} --recompute auto --offload auto --memory 64GiB"));
    for rank in explain(&plan)["ranks"].as_array().expect("ranks") {
        assert!(rank["arena_bytes"].as_u64() <= Some(64 << 30), "{rank}");
    }
}
