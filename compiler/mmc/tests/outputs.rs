//! Where `mmc` writes to: files that appear whole, links, pipes and devices, and standard output that is full or closed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use plan::sample;

/// Runs a line of a shell in a folder with `plan.bin`; `$MMC` is the program.
fn shell(folder: &Path, line: &str) -> Output {
    let mut command = Command::new("bash");
    command.args(["-c", &format!("set -o pipefail; {line}")]).current_dir(folder);
    command.env("MMC", env!("CARGO_BIN_EXE_mmc")).output().expect("bash runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("plan.bin"), sample::grid().to_bytes().expect("bytes").0).expect("written");
    folder
}

const TIMELINE: &str = "$MMC timeline plan.bin --machine ascend-910b3 -o";

#[test]
fn files_are_written_where_they_are_sent() {
    let folder = folder();
    let (dir, good) = (folder.path(), |line: &str| {
        let output = shell(folder.path(), line);
        assert!(output.status.success(), "{line}: {}", said(&output));
        output.stdout
    });
    good(&format!("{TIMELINE} plain.json"));
    let plain = fs::read(dir.join("plain.json")).expect("there");
    symlink("target.json", dir.join("link.json")).expect("linked");
    good(&format!("{TIMELINE} link.json"));
    assert_eq!(fs::read(dir.join("target.json")).expect("through the link"), plain);
    assert!(fs::symlink_metadata(dir.join("link.json")).expect("there").is_symlink());
    for line in [
        format!("{TIMELINE} /dev/stdout | cat"),
        format!("{TIMELINE} /dev/stdout > f; cat f"),
        format!("{TIMELINE} >(cat) | cat"),
        format!("mkfifo pipe; {TIMELINE} pipe & cat pipe"),
    ] {
        assert!(good(&line) == plain, "{line}");
    }
    good(&format!("{TIMELINE} /dev/null"));
}

#[test]
fn a_pipe_without_a_reader_is_told_and_a_signal_ends_the_waiting() {
    let folder = folder();
    // It waits until its word is read; then the first signal ends it.
    let end = "for i in {1..100}; do kill -TERM $(cat pid) 2>/dev/null && break; sleep 0.1; done";
    let line = format!("mkfifo pipe; {TIMELINE} pipe 2> >(head -n 1 >&2; {end}) & echo $! > pid; wait $!");
    let output = shell(folder.path(), &line);
    assert_eq!(output.status.code(), Some(143), "{}", said(&output));
    assert_eq!(said(&output), "pipe waits for somebody who reads from this pipe\n");
    // A pipe that has no name gets no other reader.
    let output = shell(folder.path(), &format!("exec 3> >(true); wait $!; {TIMELINE} /dev/fd/3"));
    assert!(!output.status.success() && said(&output).contains("cannot write /dev/fd/3: "), "{}", said(&output));
}

#[test]
fn what_cannot_be_written_is_told_and_leaves_nothing() {
    let folder = folder();
    fs::create_dir(folder.path().join("sub")).expect("made");
    for place in ["sub", "plan.bin/t.json", "nowhere/t.json", "/dev/full", "/proc/t.json"] {
        let output = shell(folder.path(), &format!("{TIMELINE} {place}"));
        assert_eq!(output.status.code(), Some(1), "{place}");
        assert!(said(&output).contains(&format!("cannot write {place}: ")), "{}", said(&output));
    }
    // Before the model is even read.
    let output = shell(folder.path(), "$MMC compile none.mm -o nowhere/plan.bin");
    assert!(said(&output).contains("cannot write nowhere/plan.bin: "), "{}", said(&output));
    let mut left: Vec<_> = fs::read_dir(folder.path()).expect("a folder").flatten().map(|e| e.file_name()).collect();
    left.sort();
    assert_eq!(left, ["plan.bin", "sub"]);
}

/// Nothing that a command reads is replaced by what it writes, by whatever name.
#[test]
fn what_is_read_is_not_written_over() {
    let folder = folder();
    let dir = folder.path();
    fs::write(dir.join("m.mm"), "fn train() {}").expect("written");
    fs::write(dir.join("beside.mm"), "fn train() {}").expect("written");
    fs::write(dir.join("cpu.toml"), "name = 1").expect("written");
    symlink("plan.bin", dir.join("link")).expect("linked");
    fs::hard_link(dir.join("m.mm"), dir.join("hard")).expect("linked");
    let contents =
        || ["m.mm", "plan.bin", "cpu.toml", "beside.mm"].map(|name| fs::read(dir.join(name)).expect("there"));
    let before = contents();
    for (line, expect) in [
        ("compile m.mm -o m.mm", "m.mm is the model that is read"),
        ("compile m.mm -o ./hard", "./hard is the model m.mm that is read"),
        ("compile m.mm --plan beside.mm -o beside.mm", "beside.mm is the model of --plan that is read"),
        ("compile m.mm -o beside.mm", "beside.mm is a model's source"),
        ("compile m.mm --machine cpu.toml -o cpu.toml", "cpu.toml is the machine that is read"),
        ("timeline plan.bin --machine ascend-910b3 -o link", "link is the plan plan.bin that is read"),
        ("explain plan.bin --memory-svg plan.bin", "plan.bin is the plan that is read"),
        ("explain plan.bin --kernels --trace cpu.toml --memory-svg cpu.toml", "cpu.toml is the trace that is read"),
    ] {
        let output = shell(dir, &format!("$MMC {line}"));
        assert!(output.status.code() == Some(1) && said(&output).contains(expect), "{line}: {}", said(&output));
    }
    assert!(contents() == before);
}

/// Neither does `export` replace the plan or the list of hosts, nor `pack` a segment; of what they write, nothing is there.
#[test]
fn segments_and_plans_are_not_written_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let run = |line: &str| shell(dir, &format!("$MMC {line}"));
    let made = run("compile qwen3.mm --preset tiny --target ascend-910b3 -o plan.bin");
    assert!(made.status.success(), "{}", said(&made));
    assert!(run("export plan.bin -o segments").status.success());
    let stem = |path: &Path| path.extension().filter(|e| *e == "air").and(path.file_stem()).map(ToOwned::to_owned);
    let mut open = vec![dir.join("segments")];
    let mut symbols = vec![];
    while let Some(path) = open.pop() {
        match fs::read_dir(&path) {
            Ok(inside) => open.extend(inside.flatten().map(|entry| entry.path())),
            Err(_) => symbols.extend(stem(&path)),
        }
    }
    // One file by the names of all segments.
    fs::create_dir_all(dir.join("om")).expect("a folder");
    fs::write(dir.join("one.om"), "a segment").expect("written");
    for symbol in &symbols {
        fs::hard_link(dir.join("one.om"), dir.join("om").join(symbol).with_extension("om")).expect("linked");
    }
    fs::create_dir(dir.join("out")).expect("a folder");
    fs::copy(dir.join("plan.bin"), dir.join("out/manifest.json")).expect("copied");
    fs::create_dir(dir.join("listed")).expect("a folder");
    fs::write(dir.join("listed/rank_table.json"), "node-0=10.0.0.1").expect("written");
    let first = symbols.first().expect("a segment").to_string_lossy().into_owned();
    for (line, expect) in [
        ("export out/manifest.json -o out".into(), "out/manifest.json is the plan that is read"),
        ("export plan.bin --hosts listed/rank_table.json -o listed".into(), "is the list of hosts that is read"),
        ("pack plan.bin --om om -o one.om".into(), "one.om is a segment om/"),
        (format!("pack plan.bin --om om -o om/{first}.om"), "that is read, and would be replaced"),
    ] {
        let output = run(&line);
        assert!(output.status.code() == Some(1) && said(&output).contains(expect), "{line}: {}", said(&output));
    }
    assert_eq!(fs::read(dir.join("one.om")).expect("there"), b"a segment");
    for name in ["out", "listed"] {
        assert_eq!(fs::read_dir(dir.join(name)).expect("a folder").count(), 1, "{name}");
    }
}

/// What has no end is not read for ever.
#[test]
fn endless_files_are_refused() {
    let folder = folder();
    fs::write(folder.path().join("m.mm"), "fn train() {}").expect("written");
    for (line, expect) in [
        ("compile /dev/zero --batch 4", "cannot read the model /dev/zero: it has more than 64"),
        ("compile m.mm --target none --machine /dev/zero", "cannot read the machine /dev/zero: it has more than 64"),
        ("explain /dev/zero", "/dev/zero: this is no plan file"),
        ("explain <(cat plan.bin /dev/zero)", "after its end"),
        ("explain plan.bin --kernels --trace /dev/zero", "cannot read the trace: it has more than 1"),
        ("opt /dev/zero --passes simplify", "cannot read the graph /dev/zero: it has more than 1"),
    ] {
        // Memory of which much less is needed.
        let output = shell(folder.path(), &format!("ulimit -v 16000000; $MMC {line}"));
        assert!(output.status.code() == Some(1) && said(&output).contains(expect), "{line}: {}", said(&output));
    }
    assert!(shell(folder.path(), "$MMC explain <(cat plan.bin)").status.success(), "a pipe holds a plan, too");
}

#[test]
fn standard_output_that_is_full_fails_and_a_reader_that_left_does_not() {
    let folder = folder();
    for command in ["explain plan.bin", "explain plan.bin --json", "diff plan.bin plan.bin", "dot plan.bin", "--help"] {
        let full = shell(folder.path(), &format!("$MMC {command} > /dev/full"));
        assert_eq!(full.status.code(), Some(1), "{command}");
        if command != "--help" {
            assert!(said(&full).contains("cannot write to standard output: No space left"), "{}", said(&full));
        }
        let left = shell(folder.path(), &format!("$MMC {command} | true"));
        assert!(left.status.success() && left.stderr.is_empty(), "{command}: {}", said(&left));
        assert!(shell(folder.path(), &format!("$MMC {command} >&-")).status.success(), "{command}");
    }
    for (told, code) in [("2>/dev/full", 1), ("2>&-", 1), ("2>&1 | true", 1)] {
        let output = shell(folder.path(), &format!("MMC_LOG=debug $MMC check none.mm {told}"));
        assert_eq!(output.status.code(), Some(code), "{told}: {}", said(&output));
    }
}
