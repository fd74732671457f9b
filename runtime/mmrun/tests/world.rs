//! Tests of runs of several ranks in one process: they give what one rank gives, resume, and end when a rank does not.

mod place;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use place::{Place, image, ramp, steady, write_tar};
use plan::{Plan, sample};
use safetensors::tensor::Dtype;

/// The sample on four ranks, fsdp 2 by tp 2.
fn grid() -> Place {
    Place::with(sample::grid())
}

#[test]
fn every_rank_says_the_same_and_one_speaks() {
    let place = grid();
    insta::assert_snapshot!(steady(&place.good("plan.bin --steps 3 --threads 2")));
}

/// The sums are taken here, in f64, from the outputs of the run itself.
#[test]
fn outputs_are_whole_tensors() {
    let place = grid();
    let x = ramp(24, -1.0);
    let w: Vec<f32> = (0..12).map(|i| 0.5 - i as f32 * 0.25).collect();
    place.write(
        "in.safetensors",
        &[("x", Dtype::F32, &[8, 3], x.clone()), ("noise", Dtype::F32, &[8, 4], ramp(32, 0.0))],
    );
    place.write("w.safetensors", &[("w", Dtype::F32, &[4, 3], bytemuck::cast_slice(&w).to_vec())]);
    place.good("plan.bin --inputs in.safetensors --weights w.safetensors --outputs o.safetensors --emit grads,params");
    let out = place.tensors("o.safetensors");
    let names: Vec<_> = out.keys().map(String::as_str).collect();
    assert_eq!(names, ["back", "grad/w", "loss", "onward", "param/w"]);
    let x: Vec<f64> = (0..24).map(|i| -1.0 + f64::from(i) * 0.125).collect();
    let y = |b: usize, o: usize| (b * 4 + o) as f64 * 0.125;
    let p = |b: usize, o: usize| (0..3).map(|i| x[b * 3 + i] * f64::from(w[o * 3 + i])).sum::<f64>();
    let error = |b, o| p(b, o) - y(b, o);
    let all = || (0..8).flat_map(|b| (0..4).map(move |o| (b, o)));
    let loss: f64 = all().map(|(b, o)| error(b, o).powi(2)).sum::<f64>() / 8.0;
    assert!((f64::from(out["loss"].1[0]) - loss).abs() < 1e-5 * loss, "{} is not {loss}", out["loss"].1[0]);
    let (shape, gradient) = &out["grad/w"];
    assert_eq!(shape, &[4, 3]);
    for (at, value) in gradient.iter().enumerate() {
        let want: f64 = (0..8).map(|b| error(b, at / 3) / 4.0 * x[b * 3 + at % 3]).sum();
        assert!((f64::from(*value) - want).abs() < 1e-4, "gradient {at} is {value}, not {want}");
    }
    // What a rank gave to its neighbour in tp stands in the neighbour's columns.
    for (at, value) in out["onward"].1.iter().enumerate() {
        let want = p(at / 4, (at % 4 + 2) % 4);
        assert!((f64::from(*value) - want).abs() < 1e-5, "onward {at} is {value}, not {want}");
    }
    // Plain momentum, from zero, in the first step.
    for (at, value) in out["param/w"].1.iter().enumerate() {
        assert!((value - (w[at] - 0.1 * gradient[at])).abs() < 1e-6, "parameter {at} is {value}");
    }
}

#[test]
fn threads_jitter_and_poison_change_nothing() {
    let place = grid();
    let run = |more: &str| {
        place.good(&format!("plan.bin --steps 5 --outputs o.safetensors --emit grads,params {more}"));
        place.tensors("o.safetensors")
    };
    let plain = run("--threads 1");
    for more in ["--threads 9", "--jitter 1", "--jitter 2 --threads 4", "--poison"] {
        assert_eq!(run(more), plain, "{more}");
    }
}

#[test]
fn a_resumed_world_is_the_unbroken_one_to_the_bit() {
    let place = grid();
    let record = |i: usize| image(&[("x", Dtype::F32, &[3], ramp(3, i as f32 * 0.3))]);
    write_tar(&place.path("data.tar"), (0..11).map(|i| (format!("{i:06}.safetensors"), record(i))));
    let run = |more: &str| place.good(&format!("plan.bin --data data.tar {more}"));
    run("--steps 6 --save whole --outputs a.safetensors --emit params");
    run("--steps 4 --save parts");
    run("--steps 2 --save parts --resume parts --outputs b.safetensors --emit params");
    for file in ["diffusion_pytorch_model.safetensors", "state/optimizer.safetensors", "state/trainer.json"] {
        let read = |folder: &str| fs::read(place.path(folder).join("step-000006").join(file)).expect("a file");
        assert_eq!(read("whole"), read("parts"), "{file}");
    }
    assert_eq!(place.tensors("a.safetensors")["param/w"], place.tensors("b.safetensors")["param/w"]);
    // Whole tensors under the checkpoint's names, each once; a rank's coordinate is not among them.
    let state = fs::read(place.path("whole/step-000006/state/optimizer.safetensors")).expect("a file");
    let state = safetensors::SafeTensors::deserialize(&state).expect("safetensors");
    let mut names = state.names();
    names.sort_unstable();
    assert_eq!(names, ["exp_avg/w", "step"]);
    assert_eq!(state.tensor("exp_avg/w").expect("there").shape(), [4, 3]);
    // The folder serves as weights.
    place.good("plan.bin --weights whole");
}

#[test]
fn a_trace_has_a_track_for_each_rank_and_lane() {
    let place = grid();
    place.good("plan.bin --steps 2 --trace t.json --metrics m.jsonl");
    assert_eq!(fs::read_to_string(place.path("m.jsonl")).expect("metrics").lines().count(), 2);
    let text = fs::read_to_string(place.path("t.json")).expect("a trace");
    let events: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    for rank in 0..4 {
        for lane in 0..5 {
            let on = |e: &&serde_json::Value| e["ph"] == "X" && e["pid"] == rank && e["tid"] == lane;
            assert!(events.iter().any(|e| on(&e)), "rank {rank} did nothing on lane {lane}");
        }
    }
}

#[test]
fn a_rank_that_stops_stops_the_run() {
    let place = grid();
    let lane = sample::grid().programs[0].bodies[0].instructions.iter().position(is_loss).expect("the loss");
    let said = |args: &str| {
        let text = place.bad(args);
        // The list of lanes tells where the others happened to be.
        let lines = text.lines().filter(|l| l.starts_with("error") || l.contains("collective") || l.contains("help"));
        lines.map(|l| format!("{l}\n")).collect::<String>()
    };
    let exit = said(&format!("plan.bin --steps 3 --fault rank=3,at={lane},kind=exit"));
    assert!(exit.contains("rank 3"), "{exit}");
    let stall = said(&format!("plan.bin --steps 3 --timeout 0.5 --fault rank=2,at={lane},kind=stall"));
    assert!(stall.contains("error: rank 2 holds up the others") && stall.contains("--timeout"), "{stall}");
    assert!(stall.contains("waits for"), "{stall}");
}

fn is_loss(instruction: &plan::Instruction) -> bool {
    matches!(&instruction.op, plan::Op::Launch(launch) if launch.kernel.index() == 1)
}

/// One rank cannot read its share of the data, and all end with what it says.
#[test]
fn a_failing_rank_has_the_last_word() {
    let place = grid();
    let record = |i: usize| image(&[("x", Dtype::F32, &[3][..], ramp(3, i as f32))]);
    write_tar(&place.path("data.tar"), (0..8).map(|i| (format!("{i:06}.safetensors"), record(i))));
    let mut command = Command::new(env!("CARGO_BIN_EXE_mmrun"));
    command.current_dir(place.0.path()).args("plan.bin --data data.tar --steps 1000000000".split(' '));
    let mut child = command.stderr(Stdio::piped()).spawn().expect("mmrun runs");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    lines.find(|line| line.starts_with("step 1")).expect("a first step");
    fs::File::options().write(true).open(place.path("data.tar")).expect("opens").set_len(600).expect("cut");
    let text: String = lines.map(|line| line + "\n").collect();
    assert_eq!(child.wait().expect("ends").code(), Some(1));
    assert!(text.contains("has no `x`") && text.contains("data.tar: the file shrank"), "{text}");
    assert!(text.contains("error: rank "), "{text}");
}

#[test]
fn faults_that_cannot_happen_are_refused() {
    let place = grid();
    insta::assert_snapshot!(place.bad("plan.bin --fault rank=1,at=5000,kind=exit"));
    insta::assert_snapshot!(place.bad("plan.bin --fault rank=9,at=1,kind=exit"));
    let check = |plan: Plan, args: &str| Place::with(plan).bad(args);
    insta::assert_snapshot!(check(sample::line(), "plan.bin --fault rank=0,at=3,kind=stall"));
}

#[test]
fn check_prints_that_no_rank_hangs() {
    let output = grid().run("plan.bin --check");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("text");
    let text: Vec<_> = text.lines().map(|l| if l.starts_with("hash") { "hash: #" } else { l }).collect();
    insta::assert_snapshot!(text.join("\n"));
}
