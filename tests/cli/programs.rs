//! Several programs in one plan, as both command lines see them: their results are the interpreter's.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use ir::{Array, Input, Interpreter, Module, Output, Precision, Type, Value};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use tests::binaries::{command, run};
use types::TensorType;

use crate::{compile as compile_published, explain};

type Tensors = HashMap<String, (Vec<usize>, Vec<f32>)>;

fn towers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cli/models/towers.mm")
}

fn wave(shape: &[usize], scale: f32) -> (Vec<usize>, Vec<f32>) {
    let count: usize = shape.iter().product();
    (shape.to_vec(), (0..count).map(|i| (i as f32 * scale).sin()).collect())
}

fn weights() -> Tensors {
    let all = [("narrow", wave(&[2, 3], 0.7)), ("wide", wave(&[2, 9], 0.3)), ("both", wave(&[2], 1.9))];
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn inputs() -> Tensors {
    let all = [("narrow/x", wave(&[4, 3], 0.9)), ("wide/x", wave(&[2, 9], 1.1))];
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let bytes: HashMap<&String, Vec<u8>> =
        tensors.iter().map(|(name, (_, v))| (name, v.iter().flat_map(|v| v.to_le_bytes()).collect())).collect();
    let view = |(name, (shape, _)): (&String, &(Vec<usize>, Vec<f32>))| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), &bytes[name]).expect("a tensor"))
    };
    serialize_to_file(tensors.iter().map(view), None, path).expect("written");
}

fn read(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).expect("outputs");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let floats = |view: &TensorView<'_>| {
        view.data().chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().expect("four bytes"))).collect()
    };
    file.tensors().into_iter().map(|(name, view)| (name, (view.shape().to_vec(), floats(&view)))).collect()
}

/// What the interpreter makes of each program of a task, by `PROGRAM/OUTPUT`; states go from one to the next.
fn interpreted(task: &str) -> HashMap<String, Vec<f64>> {
    let mut sources = diag::Sources::default();
    let text = std::fs::read_to_string(towers()).expect("a model");
    let file = sources.add("towers.mm", text);
    let options = eval::Options { task: task.into(), batch: Some(4), default_batch: 1, ..eval::Options::default() };
    let evaluated = eval::evaluate(&mut sources, file, &options, &mut |_, _| None);
    let module: Module = evaluated.unwrap_or_else(|e| panic!("{}", diag::render(&e, &sources, false))).module;
    let (weights, inputs) = (weights(), inputs());
    let array = |ty: &TensorType, (_, values): &(Vec<usize>, Vec<f32>)| {
        Value::Tensor(Array::new(ty.clone(), values.iter().map(|v| f64::from(*v)).collect()))
    };
    let (mut states, mut given) = (HashMap::<String, Value>::new(), HashMap::new());
    for program in &module.programs {
        let types: Vec<Type> = module.functions[program.function].param_types().cloned().collect();
        let args = program.inputs.iter().zip(&types).map(|(input, ty)| {
            let ty = ty.tensor().expect("a tensor");
            // The tower that folds reads what the narrow one reads.
            let tower = if program.name == *"wide" { "wide" } else { "narrow" };
            match input {
                Input::Parameter(name) => array(ty, &weights[name.as_str()]),
                Input::State(name) => states[name.as_str()].clone(),
                Input::Feed(feed) => array(ty, &inputs[&format!("{tower}/{}", feed.name)]),
            }
        });
        let args: Vec<Value> = args.collect();
        let results = Interpreter::new(&module, Precision::Declared).call(program.function, &args);
        for (output, value) in program.outputs.iter().zip(results) {
            match output {
                Output::State(name) => _ = states.insert(name.to_string(), value),
                Output::Emit(name) => {
                    _ = given.insert(format!("{}/{name}", program.name), value.tensor().data.to_vec())
                }
                other => panic!("{other:?}"),
            }
        }
    }
    given
}

fn compile(folder: &Path, task: &str, words: &str) -> PathBuf {
    let plan = folder.join(format!("{task}{}.bin", words.replace([' ', '-'], "")));
    let mut line = command("mmc");
    line.arg("compile").arg(towers()).args(["--task", task, "--batch", "4", "--cpu", "x86-64-v3"]);
    run(line.args(words.split_whitespace()).arg("-o").arg(&plan)).expect("compiles");
    plan
}

fn mmrun(folder: &Path, plan: &Path, words: &str) -> Command {
    write(&folder.join("weights.safetensors"), &weights());
    write(&folder.join("inputs.safetensors"), &inputs());
    let mut line = command("mmrun");
    line.arg(plan).arg("--weights").arg(folder.join("weights.safetensors"));
    line.arg("--inputs").arg(folder.join("inputs.safetensors")).args(words.split_whitespace());
    line
}

fn outputs(folder: &Path, plan: &Path, words: &str) -> Tensors {
    let out = folder.join("out.safetensors");
    run(mmrun(folder, plan, words).arg("--outputs").arg(&out)).expect("runs");
    read(&out)
}

fn refused(line: &mut Command) -> String {
    let output = line.output().expect("a program");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn assert_near(have: &Tensors, name: &str, want: &[f64]) {
    let (_, have) = have.get(name).unwrap_or_else(|| panic!("no `{name}` in {:?}", have.keys()));
    assert_eq!(have.len(), want.len(), "{name}");
    let near = have.iter().zip(want).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5);
    assert!(near, "{name}: {have:?} is not {want:?}");
}

/// Each has a feed `x` and an emit `out`, of types of its own.
#[test]
fn programs_have_feeds_and_emits_of_their_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = compile(folder.path(), "in_turn", "");
    let out = outputs(folder.path(), &plan, "");
    for (name, want) in interpreted("in_turn") {
        assert_near(&out, &name, &want);
    }
    let ranks = explain(&plan)["ranks"].clone();
    let flops: Vec<u64> = (0..2).map(|p| ranks[p]["flops"].as_u64().expect("FLOPs")).collect();
    assert!(flops[0] >= 4 * 3 * 2 * 2 && flops[1] >= 2 * 9 * 2 * 2, "{flops:?}");
    let said = run(command("mmc").arg("explain").arg(&plan)).expect("explains");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    for line in
        ["feed  narrow/x f32[B:4, IN:3]", "feed  wide/x f32[ROWS:2, WIDE:9]", "emit  wide/out f32[ROWS:2, OUT:2]"]
    {
        assert!(said.contains(line), "{line}: {said}");
    }
    // One tensor for both does not fit one of them, and the message says which.
    let mut line = mmrun(folder.path(), &plan, "");
    write(&folder.path().join("inputs.safetensors"), &HashMap::from([("x".to_owned(), wave(&[4, 3], 0.9))]));
    let said = refused(&mut line);
    assert!(said.contains("wide/x") && said.contains("[ROWS:2, WIDE:9]") && !said.contains("narrow/x: "), "{said}");
}

#[test]
fn the_host_decides_which_program_runs_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = compile(folder.path(), "on_demand", "");
    let want = interpreted("on_demand");
    for order in ["narrow,wide,narrow", "wide,narrow", "wide,wide,narrow,wide"] {
        let metrics = folder.path().join("m.jsonl");
        let out = outputs(folder.path(), &plan, &format!("--programs {order} --metrics {}", metrics.display()));
        want.iter().for_each(|(name, want)| assert_near(&out, name, want));
        let lines = std::fs::read_to_string(metrics).expect("metrics");
        let ran =
            lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["program"].clone());
        assert_eq!(ran.map(|p| p.as_str().expect("a name").to_owned()).collect::<Vec<_>>().join(","), order);
    }
    let said = refused(&mut mmrun(folder.path(), &plan, ""));
    assert!(said.contains("run on demand: narrow, wide") && said.contains("--programs A,B,A"), "{said}");
    let said = refused(&mut mmrun(folder.path(), &plan, "--programs narrow,tall"));
    assert!(said.contains("`tall` is no program of the plan that runs on demand"), "{said}");
    let fixed = compile(folder.path(), "in_turn", "");
    let said = refused(&mut mmrun(folder.path(), &fixed, "--programs narrow"));
    assert!(said.contains("`narrow` is no program of the plan that runs on demand"), "{said}");
}

#[test]
fn a_prepared_value_follows_from_the_weights_and_is_not_saved() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = compile(folder.path(), "prepared", "");
    std::fs::remove_file(folder.path().join("inputs.safetensors")).ok();
    let mut line = mmrun(folder.path(), &plan, "--save");
    let x = HashMap::from([("x".to_owned(), inputs()["narrow/x"].clone())]);
    write(&folder.path().join("inputs.safetensors"), &x);
    let (out, saved) = (folder.path().join("out.safetensors"), folder.path().join("saved"));
    run(line.arg(&saved).arg("--outputs").arg(&out)).expect("runs");
    let want = interpreted("prepared");
    assert_near(&read(&out), "out", &want["through/out"]);
    let holds = |path: &Path| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(6).any(|w| w == b"folded")
    };
    let files: Vec<PathBuf> = walk(&saved);
    assert!(files.len() > 1 && !files.iter().any(|f| holds(f)), "{files:?}");
    // From the checkpoint, it is prepared again.
    let again = folder.path().join("again.safetensors");
    let mut line = command("mmrun");
    line.arg(&plan).arg("--resume").arg(&saved).arg("--inputs").arg(folder.path().join("inputs.safetensors"));
    run(line.args(["--steps", "1", "--outputs"]).arg(&again)).expect("goes on");
    assert_near(&read(&again), "out", &want["through/out"]);
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// The device holds what all programs need and the parameters of one of them; results do not change.
#[test]
fn parameters_of_other_programs_sleep_in_the_hosts_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let figure = |plan: &Path, key: &str| -> u64 { explain(plan)["ranks"][0][key].as_u64().expect("a figure") };
    for (task, words) in [("in_turn", ""), ("on_demand", "--programs narrow,wide,narrow")] {
        let (all, asleep) = (compile(folder.path(), task, ""), compile(folder.path(), task, "--offload parameters"));
        let (out, same) = (outputs(folder.path(), &all, words), outputs(folder.path(), &asleep, words));
        assert_eq!(out, same, "{task}");
        assert!(figure(&asleep, "params_bytes") < figure(&all, "params_bytes"));
        assert_eq!((figure(&all, "sleeping_bytes") > 0, figure(&asleep, "sleeping_bytes") > 0), (false, true));
    }
    // Where every program needs every parameter, nothing can sleep.
    let mut line = command("mmc");
    line.arg("compile").arg(towers()).args(["--task", "narrow", "--batch", "4", "--target", "none", "--offload"]);
    let said = refused(line.args(["parameters", "-o"]).arg(folder.path().join("none.bin")));
    assert!(said.contains("no parameter can sleep in the host's memory"), "{said}");
}

/// Of Wan2.2's two experts, one lies on the device.
#[test]
fn one_expert_at_a_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let words = "wan2.2.mm --preset tiny --set BOUNDARY=0.875 --task sample";
    let [both, one] = ["", "--offload parameters"].map(|offload| {
        let plan = compile_published(folder.path(), &format!("sample{}", offload.len()), &format!("{words} {offload}"));
        let out = folder.path().join("out.safetensors");
        run(command("mmrun").arg(&plan).args(["--poison", "--outputs"]).arg(&out)).expect("runs");
        (explain(&plan)["ranks"].clone(), std::fs::read(&out).expect("the outputs"))
    });
    assert!(both.1 == one.1, "other bits");
    let figure = |of: &serde_json::Value, p: usize, key: &str| of[p][key].as_u64().expect("a figure");
    for program in 0..2 {
        let [all, part] = [&both.0, &one.0].map(|ranks| figure(ranks, program, "params_bytes"));
        assert_eq!(part * 2, all);
        assert_eq!(figure(&one.0, program, "sleeping_bytes"), all);
        assert!(figure(&one.0, program, "arena_bytes") < figure(&both.0, program, "arena_bytes"));
    }
}
