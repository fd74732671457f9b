//! Tests of the program itself on a plan with a real object: what it writes, how it resumes, and what it says.

mod place;

use std::fs;
use std::process::Command;

use place::{Place, f32s, image, ramp, steady, write_tar};
use plan::sample;
use safetensors::tensor::Dtype;

#[test]
fn a_plan_alone_runs() {
    let place = Place::new();
    insta::assert_snapshot!(steady(&place.good("plan.bin --steps 3 --threads 2")));
}

#[test]
fn outputs_have_names_and_shapes() {
    let place = Place::new();
    place.good("plan.bin --steps 4 --outputs out.safetensors --emit loss,grads,params");
    let out = place.tensors("out.safetensors");
    assert_eq!(out.keys().collect::<Vec<_>>(), ["grad/w", "loss", "param/w"]);
    assert_eq!((out["loss"].0.as_slice(), out["grad/w"].0.as_slice()), (&[4][..], &[2, 3][..]));
    // The gradients are those of the first step.
    place.good("plan.bin --steps 1 --outputs one.safetensors --emit grads");
    assert_eq!(place.tensors("one.safetensors")["grad/w"], out["grad/w"]);
    assert!(!place.tensors("one.safetensors").contains_key("param/w"));
}

#[test]
fn a_resumed_run_is_the_unbroken_one_to_the_bit() {
    let place = Place::new();
    let record = |i: usize| image(&[("x", Dtype::F32, &[3], ramp(3, i as f32 * 0.3))]);
    write_tar(&place.path("data.tar"), (0..7).map(|i| (format!("{i:06}.safetensors"), record(i))));
    let run = |more: &str| place.good(&format!("plan.bin --data data.tar {more}"));
    run("--steps 9 --outputs whole.safetensors --emit params --save whole");
    run("--steps 2 --outputs a.safetensors --save parts --save-every 1");
    run("--steps 3 --outputs b.safetensors --save parts --resume parts");
    let text = run("--steps 4 --outputs c.safetensors --save parts --emit params --resume parts/step-000005");
    assert!(text.contains("resumed at step 5"), "{text}");
    let loss = |name: &str| place.tensors(name)["loss"].1.clone();
    let parts = [loss("a.safetensors"), loss("b.safetensors"), loss("c.safetensors")].concat();
    assert_eq!(parts, loss("whole.safetensors"));
    assert_eq!(place.tensors("c.safetensors")["param/w"], place.tensors("whole.safetensors")["param/w"]);
    for file in ["diffusion_pytorch_model.safetensors", "state/optimizer.safetensors", "state/trainer.json"] {
        let read = |folder: &str| fs::read(place.path(folder).join("step-000009").join(file)).expect("a file");
        assert_eq!(read("whole"), read("parts"), "{file}");
    }
    assert_eq!(fs::read_to_string(place.path("parts/latest")).expect("latest"), "step-000009\n");
    // The folder serves as weights, too.
    let text = place.good("plan.bin --weights parts");
    assert!(text.contains("1 parameter (6 values) from parts"), "{text}");
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let place = Place::new();
    place.good("plan.bin --steps 3 --save c --save-every 1");
    let model = place.path("c/step-000003/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&model).expect("there");
    *bytes.last_mut().expect("bytes") ^= 1;
    fs::write(&model, bytes).expect("written");
    // Half a checkpoint, as a crash leaves it.
    fs::create_dir(place.path("c/step-000004.tmp")).expect("a folder");
    let text = place.good("plan.bin --resume c --save c");
    insta::assert_snapshot!(steady(&text));
    assert!(place.bad("plan.bin --resume c/step-000009").contains("step-000009"));
}

/// Killed at any moment while it saves, a run leaves a checkpoint that another run goes on from.
#[test]
fn a_killed_run_leaves_a_good_checkpoint() {
    let place = Place::new();
    place.good("plan.bin --save c");
    let mut last = 1;
    for milliseconds in [0, 1, 2, 3, 5, 9] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mmrun"));
        command
            .current_dir(place.0.path())
            .args("plan.bin --resume c --save c --save-every 1 --steps 100000".split(' '));
        command.stderr(std::process::Stdio::null());
        let mut child = command.spawn().expect("mmrun runs");
        // From the first checkpoint on, however long a busy machine takes to get there.
        let pointer = || fs::read(place.path("c/latest")).expect("latest");
        let (before, start) = (pointer(), std::time::Instant::now());
        while pointer() == before && start.elapsed().as_secs() < 20 {
            std::thread::yield_now();
        }
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        child.kill().expect("killed");
        child.wait().expect("gone");
        let text = place.good("plan.bin --resume c");
        let step: u64 =
            text.split("resumed at step ").nth(1).and_then(|t| t.split(' ').next()?.parse().ok()).expect("a step");
        assert!(step >= last && !text.contains("damaged"), "{text}");
        last = step;
    }
    assert!(last > 1, "some steps were saved");
}

#[test]
fn weights_come_in_all_published_layouts() {
    let place = Place::new();
    let w = |dtype, bytes| [("w", dtype, &[2usize, 3][..], bytes)];
    let values: [f32; 6] = [1.0, -2.0, 0.5, 4.0, -0.25, 8.0];
    place.write("one.safetensors", &w(Dtype::F32, f32s(&values)));
    let halves: Vec<u8> = values.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect();
    place.write("pipe/transformer/diffusion_pytorch_model.safetensors", &w(Dtype::BF16, halves));
    place.write("pipe/vae/diffusion_pytorch_model.safetensors", &[("other", Dtype::F32, &[1], f32s(&[1.0]))]);
    place.write(
        "hf/model-00001-of-00001.safetensors",
        &[("weight", Dtype::F64, &[2, 3], bytemuck::cast_slice(&values.map(f64::from)).to_vec())],
    );
    fs::write(
        place.path("hf/model.safetensors.index.json"),
        r#"{"metadata":{},"weight_map":{"weight":"model-00001-of-00001.safetensors"}}"#,
    )
    .expect("written");
    for from in ["one.safetensors", "pipe", "pipe/transformer", "hf", "hf/model.safetensors.index.json"] {
        place.good(&format!("plan.bin --weights {from} --outputs o.safetensors --emit grads,params"));
        let first = place.tensors("o.safetensors");
        place.good("plan.bin --weights one.safetensors --outputs p.safetensors --emit grads,params");
        assert_eq!(first, place.tensors("p.safetensors"), "{from}");
    }
}

/// The sample's header says what a config of its class must.
#[test]
fn a_config_beside_the_weights_is_compared_with_the_plan() {
    let place = Place::new();
    place.write("w/model.safetensors", &[("w", Dtype::F32, &[2, 3], f32s(&[0.0; 6]))]);
    let config = |text: &str| fs::write(place.path("w/config.json"), text).expect("written");
    config(r#"{"architectures": ["Regression"], "rate": 0.5, "kind": "linear", "dropout": 0.1}"#);
    place.good("plan.bin --weights w");
    config(r#"{"architectures": ["Regression"], "rate": 0.75, "kind": "cubic"}"#);
    insta::assert_snapshot!(place.bad("plan.bin --weights w"));
    assert!(place.bad("plan.bin --weights w --check").contains("rate is 0.75"));
    assert!(place.bad("plan.bin --weights w/model.safetensors").contains("rate is 0.75"));
    config(r#"{"architectures": ["Other"]}"#);
    let text = place.good("plan.bin --weights w");
    assert!(text.contains("w/config.json is of Other, which the model does not declare"), "{text}");
}

#[test]
fn what_data_leaves_out_is_counted_in_the_opening_lines() {
    let place = Place::new();
    let record = |i: usize| image(&[("x", Dtype::F32, &[3], ramp(3, i as f32 * 0.3))]);
    let members = (0..4).flat_map(|i| [(format!("{i}.safetensors"), record(i)), (format!("{i}.json"), b"{}".to_vec())]);
    write_tar(&place.path("data.tar"), members);
    let text = place.good("plan.bin --data data.tar");
    assert!(text.contains("4 records in data.tar; not read: 4 members (.json)\n"), "{text}");
    let members = (0..4).map(|i| (format!("clip.{i}.safetensors"), record(i)));
    write_tar(&place.path("dots.tar"), members);
    insta::assert_snapshot!(place.bad("plan.bin --data dots.tar"));
}

#[test]
fn inputs_replace_feeds_and_draws() {
    let place = Place::new();
    place.write(
        "in.safetensors",
        &[("x", Dtype::F32, &[4, 3], ramp(12, 0.0)), ("noise", Dtype::F32, &[4, 2], ramp(8, 1.0))],
    );
    place.write("w.safetensors", &[("w", Dtype::F32, &[2, 3], f32s(&[0.0; 6]))]);
    let text = place.good("plan.bin --inputs in.safetensors --weights w.safetensors --outputs o.safetensors --steps 2");
    assert!(!text.contains("synthetic"), "{text}");
    // With weights of zero the loss is the mean square of the targets.
    let mean: f32 = (0..8).map(|i| (1.0 + i as f32 * 0.125).powi(2)).sum::<f32>() / 8.0;
    assert_eq!(place.tensors("o.safetensors")["loss"].1[0], mean);
}

#[test]
fn metrics_and_traces_are_json() {
    let place = Place::new();
    place.good("plan.bin --steps 3 --metrics m.jsonl --trace t.json");
    let lines = fs::read_to_string(place.path("m.jsonl")).expect("metrics");
    assert_eq!(lines.lines().count(), 3);
    for (i, line) in lines.lines().enumerate() {
        assert!(line.starts_with(&format!("{{\"step\":{},\"loss\":", i + 1)), "{line}");
    }
    assert!(fs::read_to_string(place.path("t.json")).expect("a trace").contains("\"momentum\""));
}

#[test]
fn seconds_stop_the_run_and_save() {
    let place = Place::new();
    let text = place.good("plan.bin --seconds 0.3 --save c");
    assert!(text.contains("mmrun plan.bin --resume c --save c --steps N"), "{text}");
}

#[test]
fn check_prints_what_was_proven() {
    let place = Place::new();
    let output = place.run("plan.bin --check");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("text");
    let text: Vec<_> = text.lines().map(|l| if l.starts_with("hash") { "hash: #" } else { l }).collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn poison_changes_nothing() {
    let place = Place::new();
    place.good("plan.bin --steps 3 --outputs a.safetensors --emit params,grads");
    place.good("plan.bin --steps 3 --outputs b.safetensors --emit params,grads --poison");
    assert_eq!(place.tensors("a.safetensors"), place.tensors("b.safetensors"));
}

/// Everything that may be wrong with what a user gives, in one drawing.
#[test]
fn errors_name_the_offender_and_the_way_out() {
    let place = Place::new();
    let one = |name: &'static str, dtype, shape: &'static [usize], bytes: Vec<u8>| [(name, dtype, shape, bytes)];
    place.write("weigth.safetensors", &one("weigth", Dtype::F32, &[2, 3], ramp(6, 0.0)));
    place.write("shape.safetensors", &one("w", Dtype::F32, &[3, 2], ramp(6, 0.0)));
    place.write("ints.safetensors", &one("w", Dtype::I64, &[2, 3], vec![0; 48]));
    place.write("both/transformer/a.safetensors", &one("w", Dtype::F32, &[2, 3], ramp(6, 0.0)));
    place.write("both/transformer_2/a.safetensors", &one("w", Dtype::F32, &[2, 3], ramp(6, 0.0)));
    place.write("hf/a.safetensors", &one("v", Dtype::F32, &[1], ramp(1, 0.0)));
    fs::write(place.path("hf/model.safetensors.index.json"), r#"{"weight_map":{"w":"a.safetensors"}}"#)
        .expect("written");
    fs::write(place.path("away.safetensors.index.json"), r#"{"weight_map":{"w":"../a.safetensors"}}"#)
        .expect("written");
    place.write("in_name.safetensors", &one("nois", Dtype::F32, &[4, 2], ramp(8, 0.0)));
    place.write("in_shape.safetensors", &one("x", Dtype::F32, &[4, 4], ramp(16, 0.0)));
    place.write("in_all.safetensors", &one("x", Dtype::F32, &[4, 3], ramp(12, 0.0)));
    fs::write(place.path("junk.safetensors"), b"junk").expect("written");
    fs::write(place.path("junk.bin"), b"junk").expect("written");
    fs::write(place.path("model.mm"), b"fn train() {}").expect("written");
    fs::create_dir(place.path("empty")).expect("a folder");
    write_tar(
        &place.path("names.tar"),
        [("a/0.safetensors".to_string(), image(&one("y", Dtype::F32, &[3], ramp(3, 0.0))))],
    );
    write_tar(
        &place.path("shapes.tar"),
        [("0.safetensors".to_string(), image(&one("x", Dtype::F32, &[5], ramp(5, 0.0))))],
    );
    write_tar(&place.path("junk.tar"), [("0.safetensors".to_string(), b"junk".to_vec())]);
    let mut racy = sample::two_lanes();
    racy.programs[0].bodies[0].instructions.swap(2, 3);
    fs::write(place.path("racy.bin"), racy.to_bytes().expect("bytes").0).expect("written");

    let mut text = String::new();
    for args in [
        "none.bin",
        "junk.bin",
        "model.mm",
        "racy.bin",
        "racy.bin --check",
        "plan.bin --weights none.safetensors",
        "plan.bin --weights junk.safetensors",
        "plan.bin --weights weigth.safetensors",
        "plan.bin --weights shape.safetensors",
        "plan.bin --weights ints.safetensors",
        "plan.bin --weights both",
        "plan.bin --weights empty",
        "plan.bin --weights hf",
        "plan.bin --weights away.safetensors.index.json",
        "plan.bin --inputs in_name.safetensors",
        "plan.bin --inputs in_shape.safetensors",
        "plan.bin --data empty",
        "plan.bin --data names.tar",
        "plan.bin --data shapes.tar",
        "plan.bin --data junk.tar",
        "plan.bin --data names.tar --inputs in_all.safetensors",
        "plan.bin --emit grads",
        "plan.bin --emit norms --outputs o.safetensors",
        "plan.bin --outputs nowhere/o.safetensors",
        "plan.bin --resume empty",
        "plan.bin --save junk.bin",
    ] {
        let said: String = place.bad(args).lines().map(|l| format!("    {l}\n")).collect();
        text += &format!("$ mmrun {args}\n{said}");
    }
    insta::assert_snapshot!(steady(&text));
}

#[test]
fn a_run_past_the_end_of_its_schedule_is_told_so() {
    let mut plan = sample::two_lanes();
    plan.header.schedule_end = 2;
    let place = Place::with(plan);
    let told =
        "the schedule of the learning rate ends at step 2, and this run goes on to step 3: it keeps its last value";
    assert!(place.good("plan.bin --steps 3").contains(told));
    let text = place.good("plan.bin --steps 2 --save c");
    assert!(!text.contains("schedule"), "{text}");
    assert!(place.good("plan.bin --steps 1 --resume c").contains(told));
}
