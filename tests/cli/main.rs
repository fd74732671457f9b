//! The two command lines together: what a user is promised of determinism, resumption, memory and scale.

mod attention;
mod bad_record;
mod composites;
mod decode;
mod docs;
mod folders;
mod forms;
mod hints;
mod levels;
mod memory;
mod precision;
mod programs;
mod replay;
mod saves;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tests::binaries::{command, model, run};

fn mmc(words: &str) -> Command {
    let mut c = command("mmc");
    let mut words = words.split_whitespace();
    c.arg(words.next().expect("a command"));
    c.arg(model(words.next().expect("a model")));
    c.args(words);
    c
}

/// Compiles for one level of x86-64 on every machine, since scratch memory, and so every budget, depends on the level.
fn compile(folder: &Path, name: &str, words: &str) -> PathBuf {
    let plan = folder.join(name);
    let mut line = mmc(&format!("compile {words}"));
    if !words.contains("--target") {
        line.args(["--cpu", "x86-64-v3"]);
    }
    run(line.arg("-o").arg(&plan)).expect("compiles");
    plan
}

/// Trains and returns the bytes of the outputs: losses, gradients and parameters.
fn train(plan: &Path, folder: &Path, words: &str) -> Vec<u8> {
    let out = folder.join("out.safetensors");
    let mut c = command("mmrun");
    c.arg(plan).args(words.split_whitespace());
    c.args(["--emit", "loss,grads,params", "--outputs"]).arg(&out);
    run(&mut c).expect("runs");
    std::fs::read(out).expect("the outputs")
}

fn explain(plan: &Path) -> Value {
    let output = run(command("mmc").arg("explain").arg(plan).arg("--json")).expect("explains");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// What is computed again has the same bits, and less is held meanwhile.
#[test]
fn recompute_changes_memory_and_no_bit() {
    let folder = tempfile::tempdir().expect("a folder");
    let models = [
        "wan2.2.mm --preset tiny --batch 4 --set LAYERS=4",
        "wan2.2.mm --preset tiny --batch 4 --set LAYERS=4 --dtype bf16",
        "wan2.2.mm --preset tiny --batch 4 --set LAYERS=4 --fsdp 2 --tp 2",
        "wan2.2.mm --preset tiny --batch 4 --set LAYERS=4 --microbatches 2 --cp 2",
        "qwen3.mm --preset tiny --batch 2 --set LAYERS=4",
    ];
    for model in models {
        let [kept, again] = ["none", "full"].map(|mode| {
            let plan = compile(folder.path(), mode, &format!("{model} --recompute {mode}"));
            (explain(&plan)["ranks"][0].clone(), train(&plan, folder.path(), "--steps 2"))
        });
        assert!(kept.1 == again.1, "{model}: other bits");
        let figure = |of: &Value, key: &str| of[key].as_u64().expect("a figure");
        assert!(figure(&again.0, "flops") > figure(&kept.0, "flops"), "{model}");
        for key in ["activations_peak_bytes", "peak_bytes"] {
            assert!(figure(&again.0, key) < figure(&kept.0, key), "{model}: {key}");
        }
    }
}

/// The schedules of a small model, drawn from their plans.
#[test]
fn schedules_of_pipelines() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut drawn = String::new();
    for flags in [
        "--pp 4",
        "--pp 4 --microbatches 8 --schedule gpipe",
        "--pp 4 --microbatches 8",
        "--pp 4 --microbatches 8 --schedule zb-h1",
        "--pp 2 --microbatches 8 --schedule zb-v",
        "--pp 2 --virtual-stages 2 --microbatches 8 --fsdp 2",
        "--pp 2 --task forward",
    ] {
        let words = format!("wan2.2.mm --preset tiny --set LAYERS=4 --target none {flags}");
        let plan = compile(folder.path(), "plan.bin", &words);
        let output = run(command("mmc").arg("explain").arg(&plan).arg("--schedule")).expect("draws");
        drawn += &format!("{flags}\n{}\n", String::from_utf8(output.stdout).expect("text"));
    }
    insta::assert_snapshot!(drawn);
}

/// The predicted timeline has the plan's launches and collectives, each once, and ends with the predicted step.
#[test]
fn timeline_of_a_machine() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan =
        compile(folder.path(), "plan.bin", "wan2.2.mm --preset tiny --tp 2 --target none --machine ascend-910b3");
    let path = folder.path().join("timeline.json");
    run(command("mmc").arg("timeline").arg(&plan).arg("-o").arg(&path)).expect("a timeline");
    let events: Value = serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON");
    let spans = || events.as_array().expect("events").iter().filter(|e| e["ph"] == "X");
    let entry = &explain(&plan)["ranks"][0];
    let collectives = spans().filter(|e| {
        e["args"]["place"].is_string() && e["name"].as_str().is_some_and(|n| n.starts_with('c') && n.contains(' '))
    });
    let sent: u64 = entry["comm"].as_array().expect("a list").iter().filter_map(|c| c["count"].as_u64()).sum();
    assert_eq!(collectives.count() as u64, sent);
    let end = spans().filter_map(|e| Some(e["ts"].as_f64()? + e["dur"].as_f64()?)).fold(0.0, f64::max);
    assert!((end * 1e-6 / entry["step_seconds"].as_f64().expect("a figure") - 1.0).abs() < 1e-6);
    let refused = command("mmc").arg("timeline").arg(&plan).args(["--machine", "ascend-910x"]).output().expect("mmc");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("the built-in machines are ascend-910b1, "), "{said}");
}

/// What was measured is a machine file, and predicts steps of plans for this CPU, on one rank and on several.
#[test]
fn calibration_gives_a_machine() {
    let folder = tempfile::tempdir().expect("a folder");
    let machine = folder.path().join("cpu.toml");
    run(command("mmc").arg("calibrate").arg("-o").arg(&machine)).expect("calibrates");
    for mesh in ["", "--tp 2"] {
        let plan = compile(folder.path(), "plan.bin", &format!("wan2.2.mm --preset tiny {mesh}"));
        assert!(explain(&plan)["ranks"][0]["step_seconds"].is_null(), "no figures of this CPU are built in");
        let words = run(command("mmc").arg("explain").arg(&plan).arg("--json").arg("--machine").arg(&machine));
        let json: Value = serde_json::from_slice(&words.expect("explains").stdout).expect("JSON");
        let figure = |key: &str| json["ranks"][0][key].as_f64().unwrap_or_else(|| panic!("no `{key}` in {json}"));
        assert!(figure("step_seconds") > 0.0 && figure("peak_fraction") <= 1.0);
        assert_eq!(figure("exposed_comm_seconds") > 0.0, !mesh.is_empty());
    }
}

const TINY: [&str; 2] = ["wan2.2.mm --preset tiny", "qwen3.mm --preset tiny"];

/// What each rank sends in a train step: the fewer collectives and bytes, the better.
#[test]
fn traffic() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut drawn = String::new();
    for model in ["wan2.2.mm --preset tiny --set HEADS=4 --batch 2", "qwen3.mm --preset tiny --batch 2"] {
        for mesh in ["--tp 2 --fsdp 2", "--cp 2 --ulysses 2", "--cp 2 --ulysses 1", "--dp 2 --zero 1"] {
            let plan = compile(folder.path(), "plan.bin", &format!("{model} {mesh} --target none"));
            drawn += &format!("{model} {mesh}\n");
            for entry in explain(&plan)["ranks"][0]["comm"].as_array().expect("a list") {
                let number = |key: &str| entry[key].as_u64().expect("a number");
                let axes = entry["group"].as_array().expect("axes").iter().filter_map(Value::as_str);
                let (kind, axes) = (entry["kind"].as_str().expect("a kind"), axes.collect::<Vec<_>>().join(" x "));
                drawn += &format!("{:8} bytes in {:3} x {kind} over {axes}\n", number("bytes"), number("count"));
            }
        }
    }
    insta::assert_snapshot!(drawn);
}

#[test]
fn compiling_twice_gives_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    for words in TINY {
        let read = |name| std::fs::read(compile(folder.path(), name, words)).expect("a plan");
        assert!(read("a.bin") == read("b.bin"), "{words}");
    }
}

#[test]
fn threads_and_poison_change_no_bit() {
    let folder = tempfile::tempdir().expect("a folder");
    for words in TINY {
        for dtype in ["f32", "bf16"] {
            let plan = compile(folder.path(), "plan.bin", &format!("{words} --batch 3 --dtype {dtype}"));
            let one = train(&plan, folder.path(), "--steps 3 --threads 1");
            assert!(one == train(&plan, folder.path(), "--steps 3 --threads 2"), "{words} {dtype}: two threads");
            assert!(one == train(&plan, folder.path(), "--steps 3 --threads 3"), "{words} {dtype}: three threads");
            assert!(one == train(&plan, folder.path(), "--steps 3 --poison"), "{words} {dtype}: poisoned");
        }
    }
}

#[test]
fn a_resumed_run_equals_an_unbroken_one() {
    let folder = tempfile::tempdir().expect("a folder");
    for words in TINY {
        let plan = compile(folder.path(), "plan.bin", words);
        let saved = folder.path().join("saved");
        let (here, saved) = (folder.path(), saved.display());
        let whole = train(&plan, here, "--steps 5");
        let first = train(&plan, here, &format!("--steps 3 --save {saved}"));
        let rest = train(&plan, here, &format!("--steps 2 --resume {saved}"));
        let losses = |bytes: &[u8]| tensors(bytes, |n| n == "loss").remove(0).1;
        assert_eq!([losses(&first), losses(&rest)].concat(), losses(&whole), "{words}");
        let parameters = |bytes: &[u8]| tensors(bytes, |n| n.starts_with("param/"));
        assert!(!parameters(&whole).is_empty() && parameters(&rest) == parameters(&whole), "{words}");
        std::fs::remove_dir_all(folder.path().join("saved")).expect("the checkpoints");
    }
}

fn tensors(bytes: &[u8], which: impl Fn(&str) -> bool) -> Vec<(String, Vec<u8>)> {
    let file = safetensors::SafeTensors::deserialize(bytes).expect("safetensors");
    let mut out: Vec<_> =
        file.iter().filter(|(n, _)| which(n)).map(|(n, t)| (n.to_owned(), t.data().to_vec())).collect();
    out.sort();
    out
}

#[test]
fn the_number_of_layers_does_not_matter_to_the_graph() {
    for (words, layers) in [("wan2.2.mm", "LAYERS"), ("qwen3.mm --preset 0.6b", "LAYERS")] {
        let lines = |n: usize| {
            let words = format!("ir {words} --set {layers}={n} --target none --after group");
            let output = run(&mut mmc(&words)).expect("prints the graph");
            let text = String::from_utf8(output.stdout).expect("text");
            (text.lines().count(), text.matches("\nkernel @").count())
        };
        assert_eq!(lines(40), lines(400), "{words}");
    }
}

#[test]
fn memory_grows_linearly_with_tokens() {
    let folder = tempfile::tempdir().expect("a folder");
    let activations: Vec<f64> = [1, 2, 4]
        .iter()
        .map(|n| {
            // 1,024 tokens a frame.
            let words = format!("wan2.2.mm --preset tiny --set F={n} --set H=64 --set W=64 --target none");
            let figures = explain(&compile(folder.path(), "plan.bin", &words));
            let rank = &figures["ranks"][0];
            rank["arena_bytes"].as_f64().expect("a number")
                - rank["params_bytes"].as_f64().expect("a number")
                - rank["optimizer_bytes"].as_f64().expect("a number")
        })
        .collect();
    // Twice the growth for twice the tokens: what is quadratic would show as four times.
    let ratio = (activations[2] - activations[1]) / (activations[1] - activations[0]);
    assert!((1.8..2.2).contains(&ratio), "{activations:?} grows with a ratio of {ratio}");
}

#[test]
fn meshes_that_do_not_fit_are_refused_with_a_reason() {
    let refused = |flags: &str, words: &[&str]| {
        let line = format!("compile wan2.2.mm --preset tiny {flags} -o unwritten.bin");
        let error = run(&mut mmc(&line)).expect_err("is refused");
        assert!(words.iter().all(|w| error.contains(w)), "{error}");
    };
    refused("--ep 2", &["--ep 2", "not there yet"]);
    refused("--tp 4", &["HEADS is 2", "does not divide by 4", "1, 2", "wan2.2.mm"]);
    refused("--cp 4 --ulysses 4", &["HEADS", "divide by 4", "cp.ulysses"]);
    refused("--cp 4 --ulysses 3", &["--ulysses 3", "--cp 4"]);
    refused("--fsdp 4 --batch 2", &["2 samples for 4 replicas", "--batch 4"]);
}

/// What the compiler says of each, whole; a user must find the place and the way out in it.
#[test]
fn wishes_that_cannot_be_met() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = folder.path().join("other.mm");
    let text = "use mm::*;\n\npub fn plan(p: &mut Plan) {\n    p.shard(B, \"dp\").shard(HEADS, \"tpp\");\n}\n";
    std::fs::write(&plan, text).expect("a plan");
    let home = model("").display().to_string();
    let mut drawn = String::new();
    for words in [
        "wan2.2.mm --preset tiny --tp 3",
        "wan2.2.mm --preset tiny --cp 8 --ulysses 8",
        "wan2.2.mm --preset tiny --set HEADS=6 --tp 3 --cp 4 --ulysses 4",
        "qwen3.mm --preset tiny --tp 4",
        "qwen3.mm --preset tiny --cp 4 --ulysses 4",
        "wan2.2.mm --preset tiny --dp 2 --fsdp 2 --batch 3",
        "wan2.2.mm --preset tiny --tp 2 --plan other.mm",
        "wan2.2.mm --preset tiny --dp 2 --batch 12 --microbatches 4",
        "wan2.2.mm --preset tiny --task forward --microbatches 2",
        "wan2.2.mm --preset tiny --pp 4",
        "wan2.2.mm --preset tiny --pp 2 --virtual-stages 2 --microbatches 3",
        "wan2.2.mm --preset tiny --schedule gpipe",
        "qwen3.mm --preset tiny --pp 2 --virtual-stages 2",
        "wan2.2.mm --preset tiny --pp 2 --schedule interleaved",
        "wan2.2.mm --preset tiny --pp 2 --virtual-stages 2 --schedule zb-h1",
        "wan2.2.mm --preset tiny --pp 2 --virtual-stages 3 --schedule zb-v",
        "wan2.2.mm --preset tiny --pp 2 --dp 2 --batch 12 --microbatches 4",
        "wan2.2.mm --preset tiny --pp 2 --task forward --microbatches 2",
    ] {
        let mut line = mmc(&format!("compile {words} --target none -o unwritten.bin"));
        let output = line.current_dir(folder.path()).output().expect("mmc runs");
        assert!(!output.status.success(), "{words}");
        drawn += &format!("{words}\n{}\n", String::from_utf8_lossy(&output.stderr).replace(&home, "models/"));
    }
    insta::assert_snapshot!(drawn);
}

/// Floating-point operations of a rank are its share of all; optimiser state falls with fsdp.
#[test]
fn work_is_divided() {
    let folder = tempfile::tempdir().expect("a folder");
    let figures = |words: &str| {
        let figures = explain(&compile(folder.path(), "plan.bin", &format!("{words} --target none")));
        let number = |key: &str| figures["ranks"][0][key].as_f64().expect("a number");
        (number("flops"), number("optimizer_bytes"))
    };
    for model in ["wan2.2.mm", "wan2.2.mm --preset ti2v-5b", "qwen3.mm --preset 8b"] {
        let (flops, state) = figures(&format!("{model} --batch 4"));
        for (mesh, ranks, stored) in [
            ("--tp 4", 4.0, 1.0),
            ("--tp 2 --cp 4", 8.0, 1.0),
            ("--cp 8 --ulysses 2", 8.0, 1.0),
            ("--fsdp 4", 4.0, 4.0),
        ] {
            let (own, own_state) = figures(&format!("{model} {mesh} --batch 4"));
            let share = own * ranks / flops;
            assert!((0.95..1.05).contains(&share), "{model} {mesh}: a rank does {share} of its share of the work");
            let share = own_state * stored / state;
            assert!(
                stored == 1.0 || (0.95..1.05).contains(&share),
                "{model} {mesh}: a rank holds {share} of its share"
            );
        }
    }
}

/// The embedding of the times is one row a sample, and stays so on every rank.
#[test]
fn times_are_not_spread_over_tokens_on_a_mesh() {
    let words = "ir wan2.2.mm --preset tiny --batch 2 --tp 2 --cp 2 --fsdp 2 --after partition";
    let text = String::from_utf8(run(&mut mmc(words)).expect("prints the graph").stdout).expect("text");
    let broadcasts: Vec<&str> = text.lines().filter(|l| l.contains(" = broadcast(")).collect();
    let over_tokens =
        |line: &&&str| ["L:", "DIM:"].iter().all(|dim| line.rsplit(" : ").next().unwrap_or("").contains(dim));
    let wide: Vec<&&str> = broadcasts.iter().filter(over_tokens).collect();
    assert!(!broadcasts.is_empty() && wide.is_empty(), "{wide:#?}");
}

#[test]
fn a_run_resumes_on_another_mesh() {
    let folder = tempfile::tempdir().expect("a folder");
    let here = folder.path();
    for words in TINY {
        let words = format!("{words} --batch 4");
        let losses = |bytes: &[u8]| -> Vec<f64> {
            let raw = tensors(bytes, |n| n == "loss").remove(0).1;
            raw.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect()
        };
        let mesh = "--tp 2 --fsdp 2";
        let plan = compile(here, "plan.bin", &format!("{words} {mesh}"));
        let whole = train(&plan, here, "--steps 4");
        let saved = here.join("saved");
        train(&plan, here, &format!("--steps 2 --save {}", saved.display()));
        for other in [mesh, "", "--dp 2 --zero 1", "--cp 2"] {
            let plan = compile(here, "other.bin", &format!("{words} {other}"));
            let rest = train(&plan, here, &format!("--steps 2 --resume {}", saved.display()));
            for (a, b) in losses(&whole)[2..].iter().zip(losses(&rest)) {
                let same = if other == mesh { *a == b } else { (a - b).abs() <= 1e-6 * a.abs() };
                assert!(same, "{words}: {b} instead of {a} when resumed on `{other}`");
            }
            if other == mesh {
                let parameters = |bytes: &[u8]| tensors(bytes, |n| n.starts_with("param/"));
                assert!(parameters(&whole) == parameters(&rest), "{words}");
            }
        }
        std::fs::remove_dir_all(&saved).expect("the checkpoints");
    }
}

/// The picture of a plan at the level of phases, where it is short enough to compare.
#[test]
fn a_plan_as_a_picture() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = compile(folder.path(), "plan.bin", "wan2.2.mm --preset tiny --tp 2 --fsdp 2 --target none");
    let draw = |level: &str| {
        let output = run(command("mmc").arg("dot").arg(&plan).args(["--level", level])).expect("draws");
        String::from_utf8(output.stdout).expect("text")
    };
    insta::assert_snapshot!(draw("stages"));
    // What is sent is drawn whole at every level: as many collectives as the plan has, under their axes.
    let entry = &explain(&plan)["ranks"][0];
    let collectives: u64 = entry["comm"].as_array().expect("a list").iter().filter_map(|c| c["count"].as_u64()).sum();
    for level in ["stages", "blocks"] {
        let drawn = draw(level);
        let counts = drawn.lines().filter(|line| line.contains("shape=hexagon")).map(|line| {
            let name = line.split("<B>").nth(1).expect("a name");
            name.split_once(" \u{d7} ").map_or(1, |(count, _)| count.parse().expect("a count"))
        });
        assert_eq!(counts.sum::<u64>(), collectives, "{level}");
    }
}

/// A cache changes no byte of a plan, whether it is empty, full, damaged or gone.
#[test]
fn a_cache_of_kernels() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().join("cache");
    let plan = |flags: &str| {
        let words = format!("qwen3.mm --preset tiny {flags}");
        std::fs::read(compile(folder.path(), "plan.bin", &words)).expect("a plan")
    };
    let plain = plan("");
    let cached = format!("--cache {}", cache.display());
    assert!(plan(&cached) == plain);
    let files = || -> Vec<PathBuf> {
        std::fs::read_dir(&cache).expect("the cache").map(|entry| entry.expect("an entry").path()).collect()
    };
    let kept = files().len();
    assert!(kept > 0, "nothing was kept");
    for (i, file) in files().iter().enumerate() {
        let mut bytes = std::fs::read(file).expect("an object");
        match i % 3 {
            0 => bytes.truncate(bytes.len() / 2),
            1 => bytes[40] ^= 1,
            _ => continue,
        }
        std::fs::write(file, bytes).expect("written");
    }
    assert!(plan(&cached) == plain, "damaged files were used");
    std::fs::remove_dir_all(&cache).expect("gone");
    assert!(plan(&cached) == plain);
    assert_eq!(files().len(), kept);

    let refused = mmc(&format!("compile qwen3.mm --preset tiny --target none {cached}")).output().expect("mmc");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("leave --cache out"));
}
