//! Ranks that do not come to a meeting: they exit, are killed, stopped, or hang. The others end within the limit and name
//! them.

use std::fs;
use std::time::{Duration, Instant};

use crate::place::Place;
use crate::{Running, bad, grid, mpirun, ranks, signal};

/// A run that comes to every kind of meeting.
const ALL: &str = "plan.bin --steps 2 --seconds 600 --save s --save-every 1 --outputs o.safetensors --trace t.json";

/// Start, end, and what the others need to find out where a rank is, on a machine that is busy.
const LITTLE: Duration = Duration::from_secs(20);

#[test]
fn a_rank_that_exits_before_any_meeting_is_named() {
    let mut meetings = 0;
    loop {
        let place = grid();
        let args = format!("{ALL} --meeting-fault rank=2,at={meetings},kind=exit");
        let (code, told) = Running::start(&mut mpirun(place.0.path(), 4, &args)).finish();
        if code == Some(0) {
            break;
        }
        // mpirun ends the others as soon as it sees the end of one, so that not everybody's word need get through.
        let words: Vec<_> = told.lines().filter(|line| line.starts_with("error: (rank ")).collect();
        assert!(!words.is_empty(), "meeting {meetings}: {told}");
        for word in words {
            assert!(word.contains("rank 2 failed: its process is gone"), "meeting {meetings}: {told}");
        }
        meetings += 1;
    }
    // What all answer alike (3), the folders (4), two saves (6 each), the steps (2), the trace, the outputs (2), the end.
    assert!(meetings >= 25, "{meetings}");
}

#[test]
fn a_rank_that_hangs_before_a_meeting_is_named_within_the_limit() {
    for (rank, at) in [(2, "plan"), (0, "weights"), (1, "optimizer"), (3, "o.safetensors"), (1, "end of the run")] {
        let place = grid();
        let start = Instant::now();
        let mut command = mpirun(place.0.path(), 4, &format!("{ALL} --timeout 2 --meeting-fault"));
        let told = bad(command.arg(format!("rank={rank},at={at},kind=stall")));
        assert!(start.elapsed() < LITTLE, "{:?}: {told}", start.elapsed());
        assert!(told.contains(&format!("rank {rank} holds up the others")), "{at}: {told}");
        let wait = told.lines().find(|line| line.contains(&format!("wait for rank {rank} to ")));
        assert!(wait.is_some_and(|line| line.contains(at)), "{at}: {told}");
        assert!(told.contains("--timeout S sets how long"), "{told}");
    }
}

/// A rank hangs in the save, and the others wait for it there, when it is stopped or killed for good.
#[test]
fn a_rank_that_is_killed_or_stopped_in_a_save_is_named() {
    for (name, victim, timeout, expect) in [
        ("-KILL", 1, 60, "rank 1 failed: its process is gone"),
        ("-KILL", 0, 60, "rank 0 failed: its process is gone"),
        ("-STOP", 0, 60, "rank 0 failed: its process gave no sign for 8 s"),
        ("-STOP", 1, 4, "rank 1 does not answer"),
    ] {
        let place = grid();
        let args = format!("{ALL} --timeout {timeout} --meeting-fault rank={victim},at=optimizer,kind=stall");
        let mut child = Running::start(&mut mpirun(place.0.path(), 4, &args));
        let pids = ranks(&child, 4);
        let start = Instant::now();
        while !is_saving(&place) {
            assert!(child.goes_on() && start.elapsed() < LITTLE, "no save began");
            std::thread::sleep(Duration::from_millis(20));
        }
        let start = Instant::now();
        signal(name, pids[victim]);
        let (code, told) = child.finish();
        assert_ne!(code, Some(0));
        assert!(start.elapsed() < LITTLE, "{:?}: {told}", start.elapsed());
        assert!(told.contains(expect), "{name}: {told}");
    }
}

/// Whether a checkpoint has begun that is not whole.
fn is_saving(place: &Place) -> bool {
    let folders = fs::read_dir(place.path("s")).into_iter().flatten().flatten();
    let begun = |name: &str| name.starts_with("step-000001.tmp");
    folders.into_iter().any(|f| {
        begun(&f.file_name().to_string_lossy()) && f.path().join("diffusion_pytorch_model.safetensors").exists()
    })
}
