//! Tests of ranks that are processes under `mpirun`: they give what threads give, and when one is killed, stalls or is cut
//! off, the others say so and nothing that was saved is lost.

mod alike;
mod hosts;
mod kills;
mod launchers;
mod meetings;
mod models;
#[path = "../place/mod.rs"]
mod place;

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use place::Place;
use plan::sample;

/// How long anything here may take; what hangs fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// `mpirun` with as many ranks in a folder.
fn mpirun(folder: &Path, ranks: usize, args: &str) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["--oversubscribe", "-n", &ranks.to_string(), env!("CARGO_BIN_EXE_mmrun")]);
    prepared(command, folder, args)
}

fn prepared(mut command: Command, folder: &Path, args: &str) -> Command {
    command.args(args.split_whitespace()).current_dir(folder);
    // Whoever tests in a container is root.
    command.envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")]);
    command.stdout(Stdio::null());
    command
}

/// What was started, and the file that its standard error goes to. A pipe would stay open for as long as a daemon of
/// `mpirun` on another host lives.
struct Running {
    child: Child,
    told: File,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let told = tempfile::tempfile().expect("a file");
        command.stderr(told.try_clone().expect("a second handle"));
        Self { child: command.spawn().expect("mpirun runs: scripts/setup-mpi.sh installs it"), told }
    }

    fn goes_on(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Waits for the end; gives the code and standard error.
    fn finish(mut self) -> (Option<i32>, String) {
        let start = Instant::now();
        while self.goes_on() {
            if start.elapsed() > PATIENCE {
                panic!("mpirun did not end:\n{}", self.put_down());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        (self.child.wait().expect("a child").code(), self.told())
    }

    /// Ends what runs still; gives standard error.
    fn put_down(mut self) -> String {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait().expect("a child");
        self.told()
    }

    fn told(mut self) -> String {
        let mut text = Vec::new();
        self.told.rewind().expect("a file");
        self.told.read_to_end(&mut text).expect("read");
        String::from_utf8_lossy(&text).into_owned()
    }
}

fn good(command: &mut Command) -> String {
    let (code, text) = Running::start(command).finish();
    assert_eq!(code, Some(0), "{text}");
    text
}

fn bad(command: &mut Command) -> String {
    let (code, text) = Running::start(command).finish();
    assert!(code.is_some_and(|c| c != 0), "ended well:\n{text}");
    text
}

/// The processes of the ranks under a child, in the order of ranks.
fn ranks(mpirun: &Running, count: usize) -> Vec<u32> {
    let start = Instant::now();
    loop {
        let found = descendants(mpirun.child.id());
        if found.len() == count {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{} ranks started", found.len());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn descendants(of: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let all =
        fs::read_dir("/proc").expect("/proc").flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    for pid in all {
        // A process that is gone by now has no parent.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some((name, rest)) = stat.split_once(") ") else { continue };
        if rest.split(' ').nth(1) == Some(of.to_string().as_str()) {
            if name.ends_with("(mmrun") { found.push(pid) } else { found.extend(descendants(pid)) }
        }
    }
    found.sort_by_key(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let rank =
            environment.split(|b| *b == 0).find_map(|v| v.strip_prefix(b"OMPI_COMM_WORLD_RANK=").map(<[u8]>::to_vec));
        rank.and_then(|r| String::from_utf8(r).ok()?.parse::<u32>().ok())
    });
    found
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().expect("kill").success());
}

/// Four ranks, fsdp 2 by tp 2.
fn grid() -> Place {
    Place::with(sample::grid())
}

#[test]
fn processes_give_the_bytes_that_threads_give() {
    let place = grid();
    place.good("plan.bin --steps 5 --outputs a.safetensors --emit grads,params --save a");
    let told = good(&mut mpirun(
        place.0.path(),
        4,
        "plan.bin --steps 5 --outputs b.safetensors --emit grads,params --save b --trace t.json --metrics m.jsonl",
    ));
    let same = |a: &str, b: &str| {
        assert_eq!(fs::read(place.path(a)).expect(a), fs::read(place.path(b)).expect(b), "{a} and {b}");
    };
    same("a.safetensors", "b.safetensors");
    for file in ["diffusion_pytorch_model.safetensors", "state/optimizer.safetensors", "state/trainer.json"] {
        same(&format!("a/step-000005/{file}"), &format!("b/step-000005/{file}"));
    }
    assert_eq!(told.matches("ready after").count(), 1, "one rank speaks:\n{told}");
    let trace: serde_json::Value = serde_json::from_slice(&fs::read(place.path("t.json")).expect("t")).expect("JSON");
    let tracks = trace.as_array().expect("events").iter().filter(|e| e["name"] == "process_name");
    assert_eq!(tracks.map(|e| e["pid"].as_u64()).collect::<Vec<_>>(), [Some(0), Some(1), Some(2), Some(3)]);
    assert_eq!(fs::read_to_string(place.path("m.jsonl")).expect("m").lines().count(), 5);
}

#[test]
fn a_checkpoint_of_processes_resumes_in_threads() {
    let place = grid();
    place.good("plan.bin --steps 6 --save whole");
    good(&mut mpirun(place.0.path(), 4, "plan.bin --steps 4 --save parts --save-every 1"));
    place.good("plan.bin --steps 2 --resume parts --save parts");
    good(&mut mpirun(place.0.path(), 4, "plan.bin --steps 2 --resume parts/step-000004 --save again"));
    for file in ["diffusion_pytorch_model.safetensors", "state/optimizer.safetensors"] {
        let whole = fs::read(place.path(&format!("whole/step-000006/{file}"))).expect("whole");
        for folder in ["parts", "again"] {
            assert_eq!(fs::read(place.path(&format!("{folder}/step-000006/{file}"))).expect(file), whole, "{folder}");
        }
    }
}

#[test]
fn a_world_that_is_not_the_plans_is_refused() {
    let place = grid();
    let told = bad(&mut mpirun(place.0.path(), 3, "plan.bin"));
    assert!(told.contains("the plan is for 4 ranks, fsdp=2 tp=2, and 3 were started"), "{told}");
    fs::write(place.path("other.bin"), fs::read(Place::new().path("plan.bin")).expect("a plan")).expect("written");
    let told = bad(&mut mpirun(place.0.path(), 4, "other.bin"));
    assert!(told.contains("the plan is for one rank, and 4 were started"), "{told}");
}

#[test]
fn different_plans_are_refused() {
    let place = grid();
    let mut plan = sample::grid();
    plan.header.seed += 1;
    let other = Place::with(plan);
    let mmrun = env!("CARGO_BIN_EXE_mmrun");
    let mut command = Command::new("mpirun");
    let path = other.path("plan.bin");
    command.args(["--oversubscribe", "-n", "2", mmrun, "plan.bin", ":", "-n", "2", mmrun]).arg(path);
    let told = bad(&mut prepared(command, place.0.path(), ""));
    assert!(told.contains("ranks 0 and 2 were given different plans"), "{told}");
}

#[test]
fn a_rank_that_stalls_is_named_with_its_place() {
    let place = grid();
    let told = bad(&mut mpirun(place.0.path(), 4, "plan.bin --steps 3 --timeout 4 --fault rank=3,at=4,kind=stall"));
    assert!(told.contains("rank 3 holds up the others"), "{told}");
    assert!(told.contains("waits for rank 3") && told.contains("rank 3 is in step 1 of `train`"), "{told}");
}

#[test]
fn a_rank_that_fails_has_the_last_word() {
    let place = grid();
    let told = bad(&mut mpirun(place.0.path(), 4, "plan.bin --steps 3 --fault rank=2,at=4,kind=exit"));
    assert!(told.contains("(rank 0) rank 2 failed"), "{told}");
}
