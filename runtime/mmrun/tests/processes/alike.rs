//! Processes that were not started alike: nothing is trained, and what differs is told with both answers and the ranks.

use std::fs;
use std::path::Path;
use std::process::Command;

use safetensors::tensor::Dtype;

use crate::place::{Place, f32s, ramp, write_tar};
use crate::{bad, good, grid, prepared};

const MMRUN: &str = env!("CARGO_BIN_EXE_mmrun");

/// Ranks 0 and 1 with some options, ranks 2 and 3 with others.
fn halves(folder: &Path, first: &str, second: &str) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["--oversubscribe", "-n", "2", MMRUN, "plan.bin"]).args(first.split_whitespace());
    command.args([":", "-n", "2", MMRUN, "plan.bin"]).args(second.split_whitespace());
    prepared(command, folder, "")
}

fn refused(place: &Place, first: &str, second: &str, what: &str) {
    let told = bad(&mut halves(place.0.path(), first, second));
    assert!(told.contains(&format!("ranks 0 and 2 were given different {what}")), "{first} : {second}\n{told}");
}

fn weights(place: &Place, name: &str, start: f32) {
    place.write(name, &[("w", Dtype::F32, &[4, 3], ramp(12, start))]);
}

#[test]
fn different_options_are_refused() {
    let place = grid();
    for (first, second, what) in [
        ("--steps 3", "--steps 4", "--steps: 3 and 4"),
        ("--save a", "--save b", "--save: a and b"),
        ("--save a", "", "--save: a and nothing"),
        ("--save a --save-every 2", "--save a --save-every 3", "--save-every: 2 and 3"),
        ("--seconds 1", "", "--seconds: 1 and nothing"),
        ("--outputs o --emit grads", "--outputs o --emit params", "--emit: grads and params"),
        ("", "--trace t.json", "--trace: nothing and t.json"),
        ("--resume a", "", "--resume: a and nothing"),
    ] {
        refused(&place, first, second, what);
    }
    assert!(!place.path("a").exists() && !place.path("b").exists());
    good(&mut halves(place.0.path(), "--threads 1", "--threads 2"));
}

#[test]
fn different_checkpoints_are_refused() {
    let place = grid();
    place.good("plan.bin --steps 2 --save a --save-every 1");
    place.good("plan.bin --steps 4 --save b --save-every 2");
    weights(&place, "w.safetensors", 7.0);
    place.good("plan.bin --steps 2 --weights w.safetensors --save c");
    refused(&place, "--resume a", "--resume b", "checkpoints to resume from: step 2 in a/step-000002");
    refused(&place, "--resume a", "--resume a/step-000001", "checkpoints to resume from: step 2 in a/step-000002");
    // The same step of another training.
    refused(&place, "--resume a", "--resume c", "checkpoints to resume from: step 2 in a/step-000002");
    // The same checkpoint in another place.
    good(&mut halves(place.0.path(), "--resume a", "--resume b/step-000002"));
}

#[test]
fn different_weights_inputs_and_data_are_refused() {
    let place = grid();
    weights(&place, "a/w.safetensors", 1.0);
    weights(&place, "b/w.safetensors", 2.0);
    weights(&place, "c/w.safetensors", 1.0);
    let input = |name: &str, value: f32| place.write(name, &[("x", Dtype::F32, &[8, 3], f32s(&[value; 24]))]);
    input("a.safetensors", 1.0);
    input("b.safetensors", 2.0);
    input("c.safetensors", 1.0);
    let data = |name: &str, records: usize, value: f32| {
        let record = || crate::place::image(&[("x", Dtype::F32, &[3], f32s(&[value; 3]))]);
        fs::create_dir_all(place.path(name)).expect("a folder");
        write_tar(&place.path(name).join("0.tar"), (0..records).map(|i| (format!("{i}.safetensors"), record())));
    };
    data("da", 16, 1.0);
    data("db", 16, 2.0);
    data("dc", 16, 1.0);
    data("dd", 15, 1.0);
    for (flag, a, b, c) in [
        ("--weights", "a", "b", "c"),
        ("--inputs", "a.safetensors", "b.safetensors", "c.safetensors"),
        ("--data", "da", "db", "dc"),
    ] {
        refused(&place, &format!("{flag} {a}"), &format!("{flag} {b}"), &format!("{flag}: "));
        good(&mut halves(place.0.path(), &format!("{flag} {a}"), &format!("{flag} {c}")));
    }
    refused(&place, "--data da", "--data dd", "--data: 16 records in da");
}

/// What is wrong on one machine ends the run on all of them.
#[test]
fn what_one_rank_cannot_read_is_told_by_the_others() {
    let place = grid();
    let record = || crate::place::image(&[("x", Dtype::F32, &[3], f32s(&[1.0; 3]))]);
    for name in ["good", "bad"] {
        fs::create_dir_all(place.path(name)).expect("a folder");
        write_tar(&place.path(name).join("0.tar"), (0..16).map(|i| (format!("{i}.safetensors"), record())));
    }
    let tar = place.path("bad").join("0.tar");
    let mut bytes = fs::read(&tar).expect("a tar");
    bytes.truncate(700);
    fs::write(&tar, bytes).expect("written");
    weights(&place, "w.safetensors", 1.0);
    fs::write(place.path("cut.safetensors"), &fs::read(place.path("w.safetensors")).expect("weights")[..20])
        .expect("cut");
    for (first, second, what) in [
        ("--data good", "--data bad", "bad/0.tar"),
        ("--weights w.safetensors", "--weights cut.safetensors", "cut.safetensors"),
        ("--inputs none.safetensors", "--inputs none.safetensors", "none.safetensors"),
    ] {
        let told = bad(&mut halves(place.0.path(), first, second));
        let own = told.lines().any(|l| l.starts_with("error: (rank ") && l.contains(what));
        let others = told.lines().any(|l| l.contains(" failed: ") && l.contains(what));
        assert!(own && (others || first == second), "{second}: {told}");
    }
}

#[test]
fn one_path_that_is_two_folders_is_refused() {
    let (place, other) = (grid(), grid());
    let mut command = Command::new("mpirun");
    let args = "plan.bin --steps 2 --save s";
    command.args(["--oversubscribe", "-n", "2", MMRUN]).args(args.split(' '));
    command.args([":", "-n", "2", "-wdir"]).arg(other.0.path()).arg(MMRUN).args(args.split(' '));
    let told = bad(&mut prepared(command, place.0.path(), ""));
    assert!(told.contains("s: it is not the folder that rank 0 has under this path"), "{told}");
    // Nothing is left of the attempt.
    assert_eq!(fs::read_dir(place.path("s")).expect("a folder").count(), 0);
}
