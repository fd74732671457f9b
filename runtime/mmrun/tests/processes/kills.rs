//! Ranks killed, stopped and restarted.

use std::fs;
use std::time::Duration;

use crate::place::Place;
use crate::{Running, bad, good, grid, mpirun, ranks, signal};

/// Long enough that a kill falls somewhere inside.
const STEPS: usize = 400;

#[test]
fn a_killed_rank_is_named() {
    for victim in [0, 2] {
        let place = grid();
        let mut child = Running::start(&mut mpirun(place.0.path(), 4, "plan.bin --steps 1000000"));
        let pids = ranks(&child, 4);
        std::thread::sleep(Duration::from_millis(500));
        assert!(child.goes_on(), "it runs");
        signal("-KILL", pids[victim]);
        let (code, told) = child.finish();
        assert_ne!(code, Some(0));
        // mpirun ends the others as soon as it sees the death, so that not everybody's word need get through.
        let words: Vec<_> = told.lines().filter(|line| line.starts_with("error: (rank ")).collect();
        assert!(!words.is_empty(), "{told}");
        for word in words {
            assert!(word.contains(&format!("rank {victim} failed: its process is gone")), "{told}");
        }
    }
}

#[test]
fn a_stopped_process_is_noticed() {
    let place = grid();
    let child = Running::start(&mut mpirun(place.0.path(), 4, "plan.bin --steps 1000000"));
    let pids = ranks(&child, 4);
    std::thread::sleep(Duration::from_millis(500));
    signal("-STOP", pids[1]);
    let (code, told) = child.finish();
    assert_ne!(code, Some(0));
    assert!(told.contains("rank 1 failed: its process gave no sign for 8 s"), "{told}");
}

/// A random rank dies at a random moment, saving included; the resumed run ends as the unbroken one does, to the bit.
/// `KILLS` sets how often.
#[test]
fn random_kills_lose_nothing() {
    let kills: u64 = std::env::var("KILLS").ok().and_then(|k| k.parse().ok()).unwrap_or(4);
    let place = grid();
    good(&mut mpirun(place.0.path(), 4, &format!("plan.bin --steps {STEPS} --metrics whole.jsonl --save whole")));
    let unbroken = (losses(&place, "whole.jsonl"), saved(&place, "whole"));
    let (mut random, mut broken) = (0x9E37_79B9_7F4A_7C15_u64, 0);
    for number in 0..kills {
        let mut next = |below: u64| {
            // xorshift64, Marsaglia 2003.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let folder = format!("run{number}");
        let run = |resume: &str| {
            let args = format!("--save {folder} --save-every 3 --metrics {folder}.jsonl {resume}");
            mpirun(place.0.path(), 4, &format!("plan.bin {args}"))
        };
        let mut child = Running::start(&mut run(&format!("--steps {STEPS}")));
        let pids = ranks(&child, 4);
        std::thread::sleep(Duration::from_millis(300 + next(1500)));
        let victim = pids[next(4) as usize];
        let still = child.goes_on();
        if still {
            signal("-KILL", victim);
            broken += 1;
        }
        let (code, told) = child.finish();
        assert_eq!(code == Some(0), !still, "{told}");
        let from = latest(&place, &folder);
        if from < STEPS {
            let resume = if from > 0 { format!("--resume {folder}") } else { String::new() };
            good(&mut run(&format!("--steps {} {resume}", STEPS - from)));
        }
        assert_eq!(saved(&place, &folder), unbroken.1, "run {number}, resumed from step {from}");
        // The file of a resumed run holds the steps after the last checkpoint twice, with the same numbers.
        for (step, loss) in losses(&place, &format!("{folder}.jsonl")) {
            assert_eq!(unbroken.0[step as usize - 1], (step, loss), "run {number}, resumed from step {from}");
        }
    }
    assert!(broken > 0, "no run was still going when it was to be killed");
    println!("{broken} of {kills} runs were killed");
}

/// One rank gets the signal, and all end after the same step.
#[test]
fn a_signal_to_one_rank_ends_all_after_one_step() {
    let place = grid();
    let line = "plan.bin --until 1000000 --save s --resume auto --metrics m.jsonl";
    let child = Running::start(&mut mpirun(place.0.path(), 4, line));
    let pids = ranks(&child, 4);
    while losses(&place, "m.jsonl").is_empty() {
        std::thread::sleep(Duration::from_millis(10));
    }
    signal("-TERM", pids[2]);
    let (code, told) = child.finish();
    assert_eq!(code, Some(143), "{told}");
    assert_eq!(told.matches("stopped by SIGTERM after step").count(), 1, "{told}");
    let step = latest(&place, "s");
    place.good(&format!("plan.bin --until {} --save s --resume auto", step + 2));
    place.good(&format!("plan.bin --until {} --save whole", step + 2));
    for file in ["diffusion_pytorch_model.safetensors", "state/optimizer.safetensors"] {
        let read = |folder: &str| fs::read(place.path(&format!("{folder}/step-{:06}/{file}", step + 2))).expect(file);
        assert_eq!(read("s"), read("whole"), "{file}");
    }
}

#[test]
fn a_damaged_folder_is_told_by_every_rank() {
    let place = grid();
    good(&mut mpirun(place.0.path(), 4, "plan.bin --steps 1 --save s"));
    fs::write(place.path("s/step-000001/diffusion_pytorch_model.safetensors"), b"no").expect("written");
    let told = bad(&mut mpirun(place.0.path(), 4, "plan.bin --resume s"));
    assert!(told.contains("damaged: not what was written"), "{told}");
}

/// Step and bits of the loss, in the order of the file. A line that a kill cut short is left out.
fn losses(place: &Place, file: &str) -> Vec<(u64, u64)> {
    let text = fs::read_to_string(place.path(file)).unwrap_or_default();
    let line = |line: &str| {
        let json: serde_json::Value = serde_json::from_str(line).ok()?;
        Some((json["step"].as_u64()?, json["loss"].as_f64()?.to_bits()))
    };
    text.lines().filter_map(line).collect()
}

fn saved(place: &Place, folder: &str) -> Vec<Vec<u8>> {
    let folder = place.path(folder).join(format!("step-{STEPS:06}"));
    let read = |file| fs::read(folder.join(file)).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    vec![read("diffusion_pytorch_model.safetensors"), read("state/optimizer.safetensors")]
}

/// The step of the checkpoint that a folder points at; 0 without one.
fn latest(place: &Place, folder: &str) -> usize {
    let pointer = fs::read_to_string(place.path(folder).join("latest")).unwrap_or_default();
    pointer.trim().strip_prefix("step-").and_then(|n| n.parse().ok()).unwrap_or(0)
}
