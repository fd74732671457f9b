//! Runs that are killed at random and started again by the same command line, and pairs of runs on one folder: nothing is
//! lost, and nothing is mixed. `KILLS` and `PAIRS` set how many.

mod place;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use data::Checkpoint;
use place::{Place, image, ramp, write_tar};
use plan::sample;
use safetensors::tensor::Dtype;

const STEPS: u64 = 150;

fn count(name: &str, without: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(without)
}

/// xorshift64, Marsaglia 2003.
struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

fn start(place: &Place, line: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mmrun"));
    command.current_dir(place.0.path()).args(line.split_whitespace()).env_remove("RUST_LOG");
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("mmrun runs")
}

fn finish(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().expect("ends");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn with_records() -> Place {
    let place = Place::new();
    let record = |i: usize| image(&[("x", Dtype::F32, &[3], ramp(3, i as f32 * 0.3))]);
    write_tar(&place.path("data.tar"), (0..7).map(|i| (format!("{i:06}.safetensors"), record(i))));
    place
}

/// Every checkpoint of a folder opens with the hashes it has, and nothing else is left; gives their plans' hashes.
fn plans_of(folder: &Path) -> Vec<String> {
    let mut plans = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        if name == "latest" {
            continue;
        }
        assert!(name.starts_with("step-") && !name.contains('.'), "{name} is left in {}", folder.display());
        plans.push(Checkpoint::open(&folder.join(name)).expect("a good checkpoint").position.plan_hash);
    }
    plans
}

fn last(place: &Place, folder: &str) -> Vec<Vec<u8>> {
    let folder = place.path(folder).join(format!("step-{STEPS:06}"));
    let read = |file| fs::read(folder.join(file)).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    vec![read("diffusion_pytorch_model.safetensors"), read("state/optimizer.safetensors")]
}

/// Step and bits of the loss, in the order of the file.
fn losses(place: &Place, file: &str) -> Vec<(u64, u64)> {
    let text = fs::read_to_string(place.path(file)).expect("metrics");
    let line = |line: &str| {
        let json: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        (json["step"].as_u64().expect("a step"), json["loss"].as_f64().expect("a loss").to_bits())
    };
    text.lines().map(line).collect()
}

#[test]
fn a_killed_run_goes_on_by_the_same_command_line() {
    let (kills, place) = (count("KILLS", 12), with_records());
    let unbroken = format!("plan.bin --data data.tar --until {STEPS} --save whole --metrics whole.jsonl");
    place.good(&unbroken);
    let expect = (last(&place, "whole"), losses(&place, "whole.jsonl"));
    let (mut random, mut killed, mut round) = (Random(0x9E37_79B9_7F4A_7C15), [0, 0], 0);
    let begin = Instant::now();
    while killed[0] + killed[1] < kills {
        assert!(begin.elapsed() < Duration::from_secs(60 + 5 * kills), "runs end before they are killed");
        round += 1;
        let folder = format!("run{round}");
        // Some save all the time, some seldom.
        let every = 1 + random.below(7);
        let line = format!(
            "plan.bin --data data.tar --until {STEPS} --save {folder} --save-every {every} --keep 2 --resume auto \
             --metrics {folder}.jsonl --outputs {folder}.safetensors --emit params"
        );
        // Each round is killed a few times on its way.
        for _ in 0..=random.below(3) {
            let mut child = start(&place, &line);
            // From its beginning or from a new checkpoint on, however slow the machine.
            let pointer = || fs::read(place.path(&folder).join("latest")).ok();
            let (before, waits) = (pointer(), random.below(4) > 0);
            let waiting = Instant::now();
            while waits && pointer() == before && waiting.elapsed() < Duration::from_secs(20) {
                if child.try_wait().expect("a child").is_some() {
                    break;
                }
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_micros(random.below(60_000)));
            let kind = random.below(2) as usize;
            let name = ["-KILL", "-TERM"][kind];
            if child.try_wait().expect("a child").is_none() {
                Command::new("kill").args([name, &child.id().to_string()]).output().expect("kill");
            }
            match finish(child) {
                (Some(0), _) => {}
                (None, _) => killed[kind] += 1,
                (Some(143), _) => killed[1] += 1,
                (code, told) => panic!("ended with {code:?} by {name}: {told}"),
            }
        }
        place.good(&line);
        assert_eq!(last(&place, &folder), expect.0, "{folder}");
        plans_of(&place.path(&folder));
        for (step, loss) in losses(&place, &format!("{folder}.jsonl")) {
            assert_eq!(expect.1[step as usize - 1], (step, loss), "{folder}");
        }
        assert!(place.path(&format!("{folder}.safetensors")).exists(), "{folder}");
        fs::remove_dir_all(place.path(&folder)).expect("removed");
    }
    println!("{} runs were killed by SIGKILL and {} by SIGTERM, of {round} command lines", killed[0], killed[1]);
}

#[test]
fn pairs_of_runs_on_one_folder_mix_nothing() {
    let (pairs, place) = (count("PAIRS", 6), with_records());
    let mut other = sample::two_lanes();
    other.header.seed += 1;
    fs::copy(Place::with(other).path("plan.bin"), place.path("other.bin")).expect("copied");
    let whole = |plan: &str| {
        place.good(&format!("{plan}.bin --data data.tar --until {STEPS} --save {plan} --metrics {plan}.jsonl"));
        (last(&place, plan), losses(&place, &format!("{plan}.jsonl")))
    };
    let expect = [whole("plan"), whole("other")];
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    for pair in 0..pairs {
        let folder = format!("pair{pair}");
        // The same command line twice, or two runs that have nothing to do with each other.
        let same = pair % 2 == 0;
        let line = |plan: &str| {
            let resume = if same { "--resume auto" } else { "" };
            format!(
                "{plan}.bin --data data.tar --until {STEPS} --save {folder} --save-every 2 {resume} \
                 --metrics {folder}.jsonl"
            )
        };
        let lines = [line("plan"), line(if same { "plan" } else { "other" })];
        let first = start(&place, &lines[0]);
        std::thread::sleep(Duration::from_micros(random.below(40_000)));
        let second = start(&place, &lines[1]);
        let ends = [first, second].map(finish);
        let won = ends.iter().position(|(code, _)| *code == Some(0)).unwrap_or_else(|| panic!("{ends:?}"));
        let (code, told) = &ends[1 - won];
        let refused = told.contains("writes its checkpoints to this folder") || told.contains("--save-over");
        // One that comes when the first is over finds that nothing is left to do.
        let late = same && *code == Some(0) && told.contains("is reached already");
        assert!(*code == Some(1) && refused || late, "{ends:?}");
        let of = if same { 0 } else { won };
        assert_eq!(last(&place, &folder), expect[of].0, "{folder}");
        let plans = plans_of(&place.path(&folder));
        assert!(plans.iter().all(|plan| *plan == plans[0]), "{folder}: {plans:?}");
        assert_eq!(losses(&place, &format!("{folder}.jsonl")), expect[of].1, "{folder}");
        fs::remove_dir_all(place.path(&folder)).expect("removed");
    }
}
