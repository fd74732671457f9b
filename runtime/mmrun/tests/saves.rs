//! Tests of checkpoints as a user gets them: one writer a folder, command lines that can be repeated, and what must not
//! cost a checkpoint.

mod place;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use place::{Place, image, ramp, write_tar};
use plan::sample;
use safetensors::tensor::Dtype;

/// How long anything here may take; what hangs fails.
const PATIENCE: Duration = Duration::from_secs(60);

fn mmrun(place: &Place, args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mmrun"));
    command.current_dir(place.0.path()).args(args.split_whitespace()).env_remove("RUST_LOG");
    command.stderr(Stdio::piped());
    command
}

/// Runs a line of a shell, in which `$MMRUN` is the program.
fn shell(place: &Place, line: &str) -> Output {
    let mut command = Command::new("bash");
    command.args(["-c", line]).current_dir(place.0.path()).env("MMRUN", env!("CARGO_BIN_EXE_mmrun"));
    command.output().expect("bash runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(name: &str, child: &Child) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().expect("kill").success());
}

/// The files and folders of a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> = entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn data(place: &Place) {
    let record = |i: usize| image(&[("x", Dtype::F32, &[3], ramp(3, i as f32 * 0.3))]);
    write_tar(&place.path("data.tar"), (0..7).map(|i| (format!("{i:06}.safetensors"), record(i))));
}

fn same_checkpoint(place: &Place, a: &str, b: &str) {
    for file in ["diffusion_pytorch_model.safetensors", "state/optimizer.safetensors"] {
        let read = |folder: &str| fs::read(place.path(folder).join(file)).unwrap_or_else(|e| panic!("{folder}: {e}"));
        assert_eq!(read(a), read(b), "{file} of {a} and {b}");
    }
}

#[test]
fn a_fresh_run_into_a_used_folder_is_refused() {
    let place = Place::new();
    place.good("plan.bin --steps 3 --save c --save-every 1 --metrics m.jsonl");
    let metrics = fs::read(place.path("m.jsonl")).expect("metrics");
    let said = place.bad("plan.bin --steps 2 --save c --metrics m.jsonl");
    assert!(said.contains("c: there are checkpoints of a run, step-000003 and others"), "{said}");
    assert!(said.contains("--resume auto goes on with that run, --save-over replaces it"), "{said}");
    assert_eq!(fs::read(place.path("m.jsonl")).expect("metrics"), metrics, "a refused run writes nothing");
    place.good("plan.bin --steps 1 --save other");
    assert!(place.bad("plan.bin --steps 1 --resume other --save c").contains("--save-over"));
    assert_eq!(names(&place.path("c")), ["latest", "step-000001", "step-000002", "step-000003"]);
    place.good("plan.bin --steps 2 --save c --save-over");
    assert_eq!(names(&place.path("c")), ["latest", "step-000002"]);
    assert!(place.bad("plan.bin --save c --save-over --resume auto").contains("leave one of them out"));
}

#[test]
fn a_folder_has_one_writer() {
    let place = Place::new();
    let line = "plan.bin --steps 100000000 --save c --save-every 50 --resume auto";
    let mut first = mmrun(&place, line).stderr(Stdio::null()).spawn().expect("runs");
    wait_for("a checkpoint", || place.path("c/latest").exists());
    for line in [line, "plan.bin --save c", "plan.bin --save c --save-over"] {
        let said = place.bad(line);
        assert!(said.contains(&format!("c: process {} on ", first.id())), "{said}");
        assert!(said.contains("writes its checkpoints to this folder"), "{said}");
    }
    // Reading from it does no harm.
    place.good("plan.bin --resume c");
    first.kill().expect("killed");
    first.wait().expect("gone");
    assert!(place.path("c/lock").exists(), "a killed run leaves its lock");
    place.good("plan.bin --steps 1 --save c --resume auto");
    let left = names(&place.path("c"));
    assert!(left.iter().all(|name| !name.contains("tmp") && name != "lock"), "{left:?}");
}

#[test]
fn signals_end_the_run_after_a_step_with_its_checkpoint() {
    let place = Place::new();
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let line = format!("plan.bin --until 100000000 --save {name} --save-every 1000000000 --resume auto");
        let child = mmrun(&place, &format!("{line} --metrics {name}.jsonl")).spawn().expect("runs");
        let metrics = place.path(&format!("{name}.jsonl"));
        wait_for("a step", || fs::metadata(&metrics).is_ok_and(|m| m.len() > 0));
        signal(&format!("-{name}"), &child);
        let output = child.wait_with_output().expect("ends");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        let step = said.split("after step ").nth(1).and_then(|t| t.split(':').next()?.parse::<u64>().ok());
        let step = step.unwrap_or_else(|| panic!("no step: {said}"));
        let expect = format!(
            "stopped by SIG{name} after step {step}: {name}/step-{step:06} is saved; go on with the same command line"
        );
        assert!(said.contains(&expect), "{said}");
        let more = place.good(&format!("plan.bin --until {} --save {name} --resume auto", step + 2));
        assert!(more.contains(&format!("resumed at step {step} from")), "{more}");
        place.good(&format!("plan.bin --until {} --save {name}.whole", step + 2));
        let last = format!("step-{:06}", step + 2);
        same_checkpoint(&place, &format!("{name}/{last}"), &format!("{name}.whole/{last}"));
    }
}

/// Here the step that the first one waits for never ends.
#[test]
fn a_second_signal_ends_the_run_at_once() {
    let place = Place::with(sample::grid());
    let line = "plan.bin --save c --timeout 600 --fault rank=3,at=4,kind=stall";
    // A signal before the first step ends the run as well: then the next try leaves it more time to begin one.
    let begun = (1..20).find_map(|pause| {
        let mut child = mmrun(&place, line).spawn().expect("runs");
        let mut told = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        assert!(told.by_ref().map_while(Result::ok).any(|line| line.starts_with("ready after")));
        std::thread::sleep(Duration::from_millis(100 * pause));
        signal("-TERM", &child);
        std::thread::sleep(Duration::from_millis(500));
        child.try_wait().expect("a child").is_none().then_some((child, told))
    });
    let (mut child, told) = begun.expect("it waits for its step");
    signal("-INT", &child);
    wait_for("the end", || child.try_wait().expect("a child").is_some());
    assert_eq!(child.wait().expect("gone").code(), Some(130));
    assert_eq!(told.map_while(Result::ok).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn nobody_needs_to_read_what_is_printed() {
    let place = Place::new();
    for (number, told) in ["2>/dev/full", "2>&-", ">&- 2>&-", "2>&1 | head -n 1", "2>&1 | true"].iter().enumerate() {
        let line = format!("set -o pipefail; RUST_LOG=debug $MMRUN plan.bin --steps 30 --save c{number} {told}");
        let output = shell(&place, &line);
        assert!(output.status.success(), "{line}: {:?} {}", output.status, text(&output.stderr));
        assert!(place.path(&format!("c{number}/step-000030/state/trainer.json")).exists(), "{line}");
    }
    for args in ["plan.bin --check", "--help"] {
        let full = shell(&place, &format!("$MMRUN {args} > /dev/full"));
        assert_eq!(full.status.code(), Some(1), "{args}");
        let head = shell(&place, &format!("set -o pipefail; $MMRUN {args} | true"));
        assert!(head.status.success(), "{args}: {}", text(&head.stderr));
    }
    assert!(text(&shell(&place, "$MMRUN plan.bin --check > /dev/full").stderr).contains("standard output"));
}

#[test]
fn a_full_disk_costs_no_checkpoint() {
    let place = Place::new();
    for (number, (flag, told)) in [
        ("--metrics", "warning: no more metrics are written: /dev/full: No space left"),
        ("--trace", "/dev/full: No space left"),
        ("--outputs", "/dev/full: No space left"),
    ]
    .iter()
    .enumerate()
    {
        let said = place.bad(&format!("plan.bin --steps 3 --save c{number} {flag} /dev/full"));
        assert!(said.contains(told), "{said}");
        assert!(said.contains("error: the run ended at step 3, and not all that was asked for is written"), "{said}");
        assert!(place.path(&format!("c{number}/step-000003/state/trainer.json")).exists(), "{said}");
    }
}

#[test]
fn places_are_tried_before_the_first_step() {
    let place = Place::new();
    fs::create_dir(place.path("folder")).expect("made");
    for (args, told) in [
        ("--outputs folder", "folder: is a folder, and a file is to be written"),
        ("--metrics folder", "folder: is a folder, and a file is to be written"),
        ("--trace folder", "folder: is a folder, and a file is to be written"),
        ("--outputs nowhere/o.safetensors", "there is no folder nowhere"),
        ("--outputs /proc/o.safetensors", "/proc/o.safetensors: "),
        ("--save /proc/c", "/proc/c: "),
        ("--save plan.bin/c", "plan.bin/c: "),
        ("--resume auto", "there is no --save"),
    ] {
        let said = place.bad(&format!("plan.bin --steps 2 {args}"));
        assert!(said.contains(told) && !said.contains("ready after"), "{args}: {said}");
    }
    let output = shell(&place, "ulimit -f 0; exec $MMRUN plan.bin --steps 2 --save c");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("File too large") && !said.contains("ready after"), "{said}");
    // What is tried leaves nothing behind.
    place.bad("plan.bin --resume none --save none");
    assert!(!place.path("none").exists());
    assert_eq!(names(place.0.path()).iter().filter(|n| n.contains("tmp")).count(), 0);
}

#[test]
fn a_save_that_fails_ends_nothing_and_is_told_at_the_end() {
    let place = Place::new();
    fs::create_dir(place.path("c")).expect("made");
    fs::write(place.path("c/step-000002"), b"in the way").expect("written");
    let said = place.bad("plan.bin --steps 3 --save c --save-every 1");
    assert!(said.contains("warning: step 2 was not saved: "), "{said}");
    assert!(said.contains("saved c/step-000003") && said.contains("not all that was asked for is written"), "{said}");
    assert_eq!(names(&place.path("c")), ["latest", "step-000001", "step-000002", "step-000003"]);
    assert_eq!(fs::read_to_string(place.path("c/latest")).expect("latest"), "step-000003\n");
    // The last one, too.
    fs::create_dir(place.path("d")).expect("made");
    fs::write(place.path("d/step-000002"), b"in the way").expect("written");
    let said = place.bad("plan.bin --steps 2 --save d --save-every 2 --outputs o.safetensors");
    assert!(said.contains("step 2 was not saved"), "{said}");
    assert!(place.path("o.safetensors").exists(), "{said}");
    assert_eq!(names(&place.path("d")), ["step-000002"]);
}

#[test]
fn outputs_go_where_they_are_sent() {
    let place = Place::new();
    place.good("plan.bin --steps 2 --outputs plain.safetensors --emit params");
    let plain = fs::read(place.path("plain.safetensors")).expect("there");
    std::os::unix::fs::symlink("target.safetensors", place.path("link.safetensors")).expect("linked");
    place.good("plan.bin --steps 2 --outputs link.safetensors --emit params");
    assert_eq!(fs::read(place.path("target.safetensors")).expect("through the link"), plain);
    assert!(fs::symlink_metadata(place.path("link.safetensors")).expect("there").is_symlink());
    for line in [
        "$MMRUN plan.bin --steps 2 --outputs /dev/stdout --emit params | cat",
        "$MMRUN plan.bin --steps 2 --outputs /dev/stdout --emit params > f; cat f",
        "$MMRUN plan.bin --steps 2 --outputs >(cat) --emit params | cat",
        "mkfifo pipe; $MMRUN plan.bin --steps 2 --outputs pipe --emit params & cat pipe",
    ] {
        let output = shell(&place, line);
        assert!(output.stdout == plain, "{line}: {} bytes, {}", output.stdout.len(), text(&output.stderr));
    }
    place.good("plan.bin --steps 2 --outputs /dev/null");
    assert_eq!(names(place.0.path()).iter().filter(|n| n.contains("tmp")).count(), 0);
}

/// A signal ends a run that waits for the reader of a pipe, whether nobody has opened it or nobody takes anything.
#[test]
fn a_pipe_without_a_reader_ends_with_a_signal() {
    let place = Place::new();
    assert!(shell(&place, "mkfifo pipe").status.success());
    for args in ["--outputs pipe --save c", "--metrics pipe", "--trace pipe"] {
        let mut child = mmrun(&place, &format!("plan.bin --steps 2 {args}")).spawn().expect("runs");
        let mut told = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
        assert!(told.any(|line| line == "pipe waits for somebody who reads from this pipe"), "{args}");
        signal("-TERM", &child);
        wait_for("the end", || child.try_wait().expect("a child").is_some());
        let rest: Vec<_> = told.collect();
        let expect = "pipe: nobody reads from this pipe, and the run was stopped by SIGTERM";
        assert!(rest.iter().any(|line| line.ends_with(expect)), "{args}: {rest:?}");
    }
    assert!(place.path("c/step-000002/state/trainer.json").exists());
    let mut child = mmrun(&place, "plan.bin --steps 100000000 --metrics pipe --threads 1").spawn().expect("runs");
    let silent = fs::File::open(place.path("pipe")).expect("a reader");
    let mut told = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    assert!(told.any(|line| line == "pipe waits for somebody who reads from this pipe"));
    signal("-TERM", &child);
    wait_for("the end", || child.try_wait().expect("a child").is_some());
    assert_eq!(child.wait().expect("gone").code(), Some(143));
    drop(silent);
    // A pipe that has no name gets no other reader.
    let said = shell(&place, "exec 3> >(true); wait $!; $MMRUN plan.bin --outputs /dev/fd/3");
    assert!(text(&said.stderr).contains("/dev/fd/3: "), "{}", text(&said.stderr));
    assert_eq!(said.status.code(), Some(1));
}

#[test]
fn the_same_command_line_is_repeated() {
    let place = Place::new();
    data(&place);
    let line = "plan.bin --data data.tar --save c --save-every 2 --resume auto";
    assert_eq!(mmrun(&place, "plan.bin --steps 2 --until 3").output().expect("runs").status.code(), Some(2));
    place.good(&format!("{line} --until 5"));
    let said = place.good(&format!("{line} --until 5 --outputs o.safetensors --emit params"));
    assert!(said.contains("step 5 is reached already: no step is left to run"), "{said}");
    assert_eq!(place.tensors("o.safetensors").keys().collect::<Vec<_>>(), ["param/w"]);
    // An earlier step is reached, too.
    assert!(place.good(&format!("{line} --until 3")).contains("step 5 is reached already"));
    place.good(&format!("{line} --until 9 --outputs o.safetensors --emit params"));
    let whole = fs::read(place.path("o.safetensors")).expect("outputs");
    place.good(&format!("{line} --until 9 --outputs o.safetensors --emit params"));
    assert_eq!(fs::read(place.path("o.safetensors")).expect("outputs"), whole, "outputs of a whole run stay");
    place.good("plan.bin --data data.tar --save whole --until 9");
    same_checkpoint(&place, "c/step-000009", "whole/step-000009");
    // With weights, which are for the beginning alone.
    place.good("plan.bin --weights whole --save w --resume auto --until 2");
    let said = place.good("plan.bin --weights whole --save w --resume auto --until 4");
    assert!(said.contains("resumed at step 2") && said.contains("--weights is not read"), "{said}");
}

#[test]
fn the_newest_checkpoints_are_kept() {
    let place = Place::new();
    place.good("plan.bin --steps 9 --save three --save-every 1");
    assert_eq!(names(&place.path("three")), ["latest", "step-000007", "step-000008", "step-000009"]);
    place.good("plan.bin --steps 9 --save one --save-every 1 --keep 1");
    assert_eq!(names(&place.path("one")), ["latest", "step-000009"]);
    // Another way from an older step: what lies on the first way stays until it is written anew.
    place.good("plan.bin --steps 1 --save three --resume three/step-000007 --keep 1");
    assert_eq!(names(&place.path("three")), ["latest", "step-000008", "step-000009"]);
    assert_eq!(fs::read_to_string(place.path("three/latest")).expect("latest"), "step-000008\n");
}

#[test]
fn a_damaged_checkpoint_falls_back_to_the_one_before() {
    let place = Place::new();
    let line = "plan.bin --save c --save-every 1 --resume auto";
    place.good(&format!("{line} --until 4"));
    let damage = |step: u64| {
        let path = place.path(&format!("c/step-{step:06}/state/optimizer.safetensors"));
        let mut bytes = fs::read(&path).expect("there");
        *bytes.last_mut().expect("bytes") ^= 1;
        fs::write(&path, bytes).expect("written");
    };
    damage(4);
    let said = place.good(&format!("{line} --until 6"));
    assert!(said.contains("passed over a damaged checkpoint: c/step-000004/state/optimizer.safetensors"), "{said}");
    assert!(said.contains("resumed at step 3 from c/step-000003"), "{said}");
    place.good("plan.bin --save whole --until 6");
    same_checkpoint(&place, "c/step-000006", "whole/step-000006");
    (4..=6).for_each(damage);
    let said = place.bad(&format!("{line} --until 7"));
    assert!(
        said.contains("c/step-000006/state/optimizer.safetensors: damaged"),
        "nothing begins anew in silence: {said}"
    );
}

#[test]
fn records_are_not_forgotten() {
    let place = Place::new();
    data(&place);
    place.good("plan.bin --data data.tar --save c --steps 2");
    let said = place.bad("plan.bin --resume c --save c --steps 2");
    assert!(said.contains("c/step-000002: its run had 7 records of data.tar, and this one has no --data"), "{said}");
    assert!(said.contains("--resume-without-data"), "{said}");
    let said = place.good("plan.bin --resume c --steps 2 --resume-without-data");
    assert!(said.contains("this one goes on without"), "{said}");
    place.good("plan.bin --data data.tar --resume c --save c --steps 2");
}

#[test]
fn a_cut_line_of_metrics_is_taken_back() {
    let place = Place::new();
    place.good("plan.bin --until 3 --save c --metrics m.jsonl");
    let whole = fs::read_to_string(place.path("m.jsonl")).expect("metrics");
    fs::write(place.path("m.jsonl"), format!("{whole}{{\"step\":4,\"lo")).expect("written");
    place.good("plan.bin --until 5 --save c --resume auto --metrics m.jsonl");
    let lines = fs::read_to_string(place.path("m.jsonl")).expect("metrics");
    assert!(lines.starts_with(&whole), "{lines}");
    assert_eq!(lines.lines().count(), 5, "{lines}");
    for line in lines.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    }
}

/// No file that a run reads or writes is another file that it writes, by whatever name.
#[test]
fn outputs_have_places_of_their_own() {
    use std::os::unix::fs::symlink;
    let place = Place::new();
    data(&place);
    fs::create_dir(place.path("records")).expect("made");
    fs::copy(place.path("data.tar"), place.path("records/a.tar")).expect("copied");
    place.write("w.safetensors", &[("w", Dtype::F32, &[2, 3], ramp(6, 0.0))]);
    symlink("data.tar", place.path("link.tar")).expect("linked");
    fs::hard_link(place.path("plan.bin"), place.path("hard.bin")).expect("linked");
    place.good("plan.bin --save c");
    let files =
        ["plan.bin", "data.tar", "records/a.tar", "w.safetensors", "c/latest", "c/step-000001/state/trainer.json"];
    let contents = || files.map(|name| fs::read(place.path(name)).expect("there"));
    let before = contents();
    for (line, expect) in [
        ("--data data.tar --outputs data.tar", "--outputs data.tar is --data data.tar, which this run uses, too"),
        ("--data data.tar --metrics link.tar", "--metrics link.tar is --data data.tar"),
        ("--data records --outputs records/a.tar", "--outputs records/a.tar is a file of --data records"),
        ("--weights w.safetensors --outputs ./w.safetensors", "is --weights w.safetensors"),
        ("--outputs plan.bin", "--outputs plan.bin is the plan plan.bin"),
        ("--trace hard.bin", "--trace hard.bin is the plan plan.bin"),
        ("--metrics same --trace same", "--metrics same is the file of --trace"),
        ("--outputs ./same --trace same", "--trace same is the file of --outputs"),
        ("--save new --outputs new", "--outputs new is --save new"),
        ("--resume c --metrics c/latest", "--metrics c/latest is a file of --resume c"),
        ("--resume c --trace c/step-000001/state/trainer.json", "state/trainer.json is a file of --resume c"),
    ] {
        let said = place.bad(&format!("plan.bin {line}"));
        assert!(said.contains(expect), "{line}: {said}");
    }
    assert!(contents() == before);
    assert!(!place.path("same").exists() && !place.path("new").exists());
    place.good("plan.bin --metrics /dev/null --trace /dev/null --outputs /dev/null");
    // What an earlier run wrote into the folder of checkpoints is written again.
    for _ in 0..2 {
        place.good("plan.bin --save c --resume auto --metrics c/m.jsonl --trace c/t.json --outputs c/o.safetensors");
    }
}

/// Links that lead nowhere, and files in the place of folders: the message names what was given, and the way out.
#[test]
fn places_that_lead_nowhere_are_named() {
    use std::os::unix::fs::symlink;
    let place = Place::new();
    symlink("gone", place.path("dangling")).expect("linked");
    symlink("gone/x", place.path("deep")).expect("linked");
    let line = "mkdir pipes round damaged; mkfifo pipe pipes/x.tar pipes/model.safetensors; ln -s x.tar round/x.tar";
    assert!(shell(&place, line).status.success());
    let _socket = std::os::unix::net::UnixListener::bind(place.path("socket")).expect("a socket");
    place.good("plan.bin --save c");
    for folder in ["damaged/step-000001/state/trainer.json", "d/latest"] {
        fs::create_dir_all(place.path(folder)).expect("made");
    }
    for (line, expect) in [
        ("--resume c/latest", ["--resume wants a folder, and c/latest is a file", "--resume c\n"]),
        ("--resume pipe", ["--resume wants a folder, and pipe is a file", "help: give the folder"]),
        ("--data pipe", ["pipe: is no regular file", ""]),
        ("--data pipes", ["pipes/model.safetensors: is no regular file", ""]),
        ("--weights pipes", ["pipes/model.safetensors: is no regular file", ""]),
        ("--inputs pipe", ["pipe: is no regular file", ""]),
        ("--outputs socket", ["socket: is a socket, and a file or a pipe is to be written", ""]),
        ("--metrics socket", ["socket: is a socket, and a file or a pipe is to be written", ""]),
        ("--data round", ["round/x.tar: Too many levels of symbolic links", ""]),
        ("--save d --save-over", ["d/latest: a folder, where the name of the latest", "give --save another folder"]),
        ("--resume damaged", ["state/trainer.json: is a folder", "begin anew in this one with --save-over"]),
        ("--save dangling", ["--save dangling is a link to gone, which is not there", "remove the link"]),
        ("--outputs deep", ["deep is a link to gone/x, and there is no folder gone", "make the folder first"]),
        ("--trace deep", ["deep is a link to gone/x, and there is no folder gone", "make the folder first"]),
    ] {
        let said = place.bad(&format!("plan.bin {line}"));
        assert!(expect.iter().all(|part| said.contains(part)), "{line}: {said}");
    }
}

#[test]
fn endless_files_are_refused() {
    let place = Place::new();
    for line in [
        "/dev/zero",
        "/dev/zero --check",
        "plan.bin --inputs /dev/zero",
        "plan.bin --data /dev/zero",
        "plan.bin --weights /dev/zero",
    ] {
        let said = place.bad(line);
        assert!(said.contains("/dev/zero: "), "{line}: {said}");
    }
    assert!(place.bad("/dev/zero").contains("is no regular file"));
    let output = shell(&place, "RANK_ID=0 RANK_TABLE_FILE=/dev/zero $MMRUN plan.bin");
    assert!(text(&output.stderr).contains("longer than any rank table"), "{}", text(&output.stderr));
    let output = shell(&place, "RANK_ID=0 RANK_SIZE=2 $MMRUN plan.bin");
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("rank 0 of 2"), "{said}");
    assert!(said.contains("unset RANK_ID RANK_SIZE"), "{said}");
}
