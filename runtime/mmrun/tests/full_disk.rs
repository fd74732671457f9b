//! Tests of `--save` on a disk that is full or becomes so: small ones, where the system lets a test mount them. What goes
//! for a checkpoint and what stays is tested without them in `data`.

mod place;

use std::fs;
use std::process::Command;

use place::Place;

/// Runs a line of bash in which `d` is a disk of so many KiB, and `$MMRUN` is the program; gives what was printed, or None
/// where the system does not let us.
fn on_disk(place: &Place, kib: usize, line: &str) -> Option<String> {
    fs::create_dir_all(place.path("d")).expect("made");
    let mount = format!("mount -t tmpfs -o size={kib}k none d");
    let mounted = |line: &str| {
        let mut command = Command::new("unshare");
        command.args(["-rm", "bash", "-c", line]).current_dir(place.0.path());
        command.env("MMRUN", env!("CARGO_BIN_EXE_mmrun")).output()
    };
    if !mounted(&mount).is_ok_and(|output| output.status.success()) {
        eprintln!("not run: this system gives a test no disk of its own");
        return None;
    }
    let output = mounted(&format!("{mount} && {{ {line}; }} 2>&1")).expect("bash runs");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Not only the pages of a checkpoint are on the disk, so that two fit here, and three do not.
const TWO: usize = 44;

#[test]
fn a_full_disk_is_told_before_the_first_step() {
    let place = Place::new();
    let fill = "dd if=/dev/zero of=d/fill bs=4k 2>/dev/null";
    let Some(said) = on_disk(&place, TWO, &format!("{fill}; $MMRUN plan.bin --save d/c; echo rc $?; ls d")) else {
        return;
    };
    assert!(said.contains("d/c: the disk is full: a checkpoint needs 16.5 KiB, and 0 B are free"), "{said}");
    assert!(said.contains("free space there") && !said.contains("ready after"), "{said}");
    assert!(said.ends_with("rc 1\nfill\n"), "{said}");
    // A run that goes on may take the room of what it need not keep.
    let line = "$MMRUN plan.bin --save d --save-every 1 --resume auto";
    let nearly = format!("{fill}; truncate -s -12K d/fill");
    let full = format!("{line} --until 2; {nearly}; {line} --until 5 --keep 2 && echo good; ls d");
    let said = on_disk(&place, TWO, &full).expect("as before");
    assert!(said.contains("resumed at step 2 from d/step-000002"), "{said}");
    assert!(said.ends_with("good\nfill\nlatest\nstep-000004\nstep-000005\n"), "{said}");
    // Where nothing is to be saved, the disk does not matter.
    let said =
        on_disk(&place, TWO, &format!("{line} --until 2; {fill}; {line} --until 2 && echo good")).expect("as before");
    assert!(said.contains("step 2 is reached already") && said.ends_with("good\n"), "{said}");
}

#[test]
fn each_step_that_was_not_saved_is_named_once() {
    let place = Place::new();
    let line = "$MMRUN plan.bin --steps 5 --save d --save-every 1 --keep 9; echo rc $?; ls d; ls d/* | grep -c tmp";
    let Some(said) = on_disk(&place, TWO, line) else { return };
    assert!(said.contains("saved d/step-000002"), "{said}");
    let (before, error) = said.split_once("error: the run ended at step 5").expect("an error at the end");
    for step in 3..=5 {
        let words = format!("step {step} was not saved: d: the disk is full");
        assert_eq!((before.matches(&words).count(), error.matches(&words).count()), (1, 1), "{said}");
    }
    assert_eq!(error.matches("help: free space there").count(), 1, "{said}");
    assert!(said.ends_with("rc 1\nlatest\nstep-000001\nstep-000002\n0\n"), "{said}");
}
