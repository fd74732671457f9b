//! `mmc diff` on hand-made plans: what it prints, and that nothing which differs is kept back.

use std::path::Path;
use std::process::Command;

use plan::{Op, Plan, sample};

/// What is printed, less the hashes.
fn diff(a: &Plan, b: &Plan, words: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let hashes = [("a.bin", a), ("b.bin", b)].map(|(name, plan)| {
        let (bytes, hash) = plan.to_bytes().expect("a plan that can be written");
        std::fs::write(folder.path().join(name), bytes).expect("the plan");
        hash.to_string()[..12].to_owned()
    });
    let mut line = Command::new(env!("CARGO_BIN_EXE_mmc"));
    let output = line.current_dir(folder.path()).args(["diff", "a.bin", "b.bin"]).args(words).output().expect("mmc");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    hashes.iter().fold(text, |text, hash| text.replace(hash, "HASH"))
}

/// What is said of a change to the sample of several ranks.
fn changed(change: impl FnOnce(&mut Plan)) -> String {
    let mut plan = sample::grid();
    change(&mut plan);
    diff(&sample::grid(), &plan, &[])
}

#[test]
fn other_plans() {
    insta::assert_snapshot!(diff(&sample::line(), &sample::grid(), &["--machine", "ascend-910b3"]));
}

#[test]
fn the_same_plan() {
    insta::assert_snapshot!(changed(|_| ()));
}

#[test]
fn one_collective_less() {
    insta::assert_snapshot!(changed(|plan| {
        let body = &mut plan.programs[0].bodies[0];
        let at = body.instructions.iter().position(|i| matches!(i.op, Op::Collect(_))).expect("a collective");
        body.instructions.remove(at);
    }));
}

#[test]
fn each_kind_of_change_is_told() {
    let check = |told: &str, change: fn(&mut Plan)| {
        let text = changed(change);
        assert!(text.contains(told), "no `{told}` in\n{text}");
    };
    check("~ seed: 7 -> 8", |plan| plan.header.seed = 8);
    check("- parameter ", |plan| {
        plan.manifest.parameters.pop();
        plan.manifest.states.iter_mut().for_each(|state| state.of = None);
        plan.programs.iter_mut().flat_map(|p| &mut p.emits).for_each(|emit| emit.of = None);
    });
    check("code: 0 B -> 3 B", |plan| plan.object = b"abc".to_vec());
    check("the whole arena", |plan| plan.programs[0].bodies[0].arena_bytes *= 2);
    check("on to other bytes", |plan| {
        for instruction in &mut plan.programs[0].bodies[0].instructions {
            if let Op::Collect(collect) = &mut instruction.op {
                collect.from.reverse();
            }
        }
    });
    check("only places in the model's file differ, or ids", |plan| plan.places[0].column += 0x100);
}

#[test]
fn a_missing_file_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_mmc")).args(["diff", "a.bin", "b.bin"]).output().expect("mmc");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("a.bin") && !Path::new("a.bin").exists(), "{said}");
}
