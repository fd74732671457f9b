//! Numbers that are not finite, and means over nothing: what a user of both command lines is promised.

mod spellings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;
use tests::binaries::{command, model, run};

type Tensors = BTreeMap<String, Vec<f32>>;

fn compile(folder: &Path, words: &str) -> PathBuf {
    let plan = folder.join("plan.bin");
    let mut words = words.split_whitespace();
    let mut c = command("mmc");
    c.arg("compile").arg(model(words.next().expect("a model"))).args(words).arg("-o").arg(&plan);
    run(&mut c).expect("compiles");
    plan
}

/// `mmrun` in a folder.
fn mmrun(folder: &Path, words: &str) -> Command {
    let mut c = command("mmrun");
    c.current_dir(folder).args(words.split_whitespace());
    c
}

fn refused(mut c: Command) -> String {
    let output: Output = c.output().expect("starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    said
}

fn said(mut c: Command) -> String {
    String::from_utf8_lossy(&run(&mut c).expect("runs").stderr).into_owned()
}

fn read(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).expect("a file");
    let file = SafeTensors::deserialize(&bytes).expect("tensors");
    let values = |view: TensorView<'_>| match view.dtype() {
        Dtype::I64 => view.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f32).collect(),
        _ => view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    };
    file.tensors().into_iter().map(|(name, view)| (name, values(view))).collect()
}

fn write(path: &Path, tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) {
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, data)| (*name, TensorView::new(*dtype, shape.clone(), data).expect("a view")));
    std::fs::write(path, safetensors::serialize(views, None).expect("bytes")).expect("written");
}

/// Ids and labels of four samples for the tiny Qwen3; of a sample in `ignored`, no label counts.
fn tokens(path: &Path, ignored: &[usize]) {
    let ids: Vec<u8> = (0..64i64).flat_map(|i| (i * i % 128).to_le_bytes()).collect();
    let label = |i: usize| if ignored.contains(&(i / 16)) { -100 } else { (i * 7 % 128) as i64 };
    let labels = (0..64).flat_map(|i| label(i).to_le_bytes()).collect();
    write(path, &[("ids", Dtype::I64, vec![4, 16], ids), ("labels", Dtype::I64, vec![4, 16], labels)]);
}

/// Seven records for the tiny Wan; `strange` stands in number 1's text.
fn records(folder: &Path, strange: f32) {
    std::fs::create_dir(folder).expect("a folder");
    for record in 0..7 {
        let values = |count: usize, strange: f32| {
            let value = |i: usize| if i == 21 { strange } else { ((i * 7 + record) % 13) as f32 / 13.0 };
            (0..count).flat_map(|i| value(i).to_le_bytes()).collect::<Vec<u8>>()
        };
        let text = values(64, if record == 1 { strange } else { 0.5 });
        let tensors =
            [("latent", Dtype::F32, vec![4, 2, 8, 8], values(512, 0.5)), ("text", Dtype::F32, vec![4, 16], text)];
        write(&folder.join(format!("{record}.safetensors")), &tensors);
    }
}

fn metrics(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("metrics");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

const MESHES: [&str; 6] = [
    "",
    "--microbatches 2",
    "--microbatches 2 --fsdp 2",
    "--pp 2 --microbatches 2",
    "--dp 2 --microbatches 2",
    "--cp 2 --tp 2",
];

/// Where no label of a step counts, its gradients are 0 on every mesh, and the update is that of zeros.
#[test]
fn a_batch_without_labels_has_no_gradient() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    tokens(&folder.join("none.safetensors"), &[0, 1, 2, 3]);
    let mut first: Option<Tensors> = None;
    for mesh in MESHES {
        compile(folder, &format!("qwen3.mm --preset tiny --batch 4 {mesh}"));
        let words = "plan.bin --inputs none.safetensors --outputs out.safetensors --emit grads,params";
        run(&mut mmrun(folder, words)).expect("runs");
        let out = read(&folder.join("out.safetensors"));
        let gradients = out.iter().filter(|(name, _)| name.starts_with("grad/"));
        assert!(gradients.flat_map(|(_, values)| values).all(|g| *g == 0.0), "{mesh}");
        assert_eq!((&out["loss"][..], &out["grad_norm"][..]), (&[0.0][..], &[0.0][..]), "{mesh}");
        let first = first.get_or_insert_with(|| out.clone());
        assert!(*first == out, "{mesh}: not one rank's numbers");
    }
}

/// Where one micro-batch of several has no label that counts, the others' gradients are what one rank makes of all.
#[test]
fn a_micro_batch_without_labels_counts_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    tokens(&folder.join("some.safetensors"), &[0, 1]);
    let mut first: Option<Tensors> = None;
    for mesh in ["", "--microbatches 2", "--microbatches 4", "--pp 2 --microbatches 2"] {
        compile(folder, &format!("qwen3.mm --preset tiny --batch 4 {mesh}"));
        let words = "plan.bin --inputs some.safetensors --outputs out.safetensors --emit grads";
        run(&mut mmrun(folder, words)).expect("runs");
        let out = read(&folder.join("out.safetensors"));
        let first = first.get_or_insert_with(|| out.clone());
        for (name, values) in &out {
            let apart = values.iter().zip(&first[name]).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
            let norm = first[name].iter().map(|x| x * x).sum::<f32>().sqrt();
            assert!(norm > 0.0 && apart <= 1e-5 * norm, "{mesh}: {name} is {apart} apart, of {norm}");
        }
    }
}

const TRAINED: [&str; 4] = [
    "--batch 1 --set LAYERS=2",
    "--batch 1 --set LAYERS=2 --tp 2 --dtype bf16",
    "--batch 1 --set LAYERS=2 --pp 2 --optim clip=0",
    "--batch 1 --set LAYERS=2 --cp 2 --optim kind=sgd,lr=0.1",
];

/// A record that is not finite ends a run before its step: it is named, and the last whole step is saved.
#[test]
fn a_record_that_is_not_finite_ends_the_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    records(&folder.join("data"), f32::NAN);
    for (at, flags) in TRAINED.iter().enumerate() {
        compile(folder, &format!("wan2.2.mm --preset tiny {flags}"));
        let said =
            refused(mmrun(folder, &format!("plan.bin --data data --steps 7 --save {at} --outputs {at}.safetensors")));
        assert!(said.contains("data/1.safetensors: `text`: element [1, 5] is NaN"), "{flags}: {said}");
        assert!(said.contains("--on-nan skip"), "{said}");
        let name = std::fs::read_to_string(folder.join(format!("{at}/latest"))).expect("a checkpoint");
        let checkpoint = folder.join(format!("{at}/{}", name.trim()));
        let whole = read(&folder.join(format!("{at}.safetensors"))).get("loss").map_or(0, Vec::len);
        for file in ["diffusion_pytorch_model.safetensors", "state/optimizer.safetensors"] {
            let tensors = read(&checkpoint.join(file));
            assert!(tensors.values().flatten().all(|x| x.is_finite()), "{flags}: {file}");
            if let Some(step) = tensors.get("step") {
                assert_eq!((step[0], name.trim()), (whole as f32, format!("step-{whole:06}").as_str()), "{flags}");
            }
        }
        // The checkpoint goes on where the run ended.
        let said = refused(mmrun(folder, &format!("plan.bin --data data --steps 1 --resume {at}")));
        assert!(said.contains(&format!("step {} was not begun", whole + 1)), "{said}");
    }
}

/// With `--on-nan skip` such a step changes nothing but the place in the data; a resumed run goes on from there.
#[test]
fn skipped_steps_change_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    records(&folder.join("data"), f32::INFINITY);
    for (at, flags) in TRAINED.iter().enumerate() {
        compile(folder, &format!("wan2.2.mm --preset tiny {flags}"));
        let go = |words: &str| mmrun(folder, &format!("plan.bin --data data --on-nan skip {words}"));
        let told = said(go(&format!(
            "--steps 7 --save {at} --save-every 1 --keep 7 --metrics {at}.jsonl --outputs {at}.safetensors --emit params"
        )));
        assert!(told.contains("data/1.safetensors: `text`: element [1, 5] is inf"), "{flags}: {told}");
        assert!(told.contains("1 of 7 steps updated nothing"), "{flags}: {told}");
        let lines = metrics(&folder.join(format!("{at}.jsonl")));
        let skipped: Vec<usize> = (1..=7).filter(|step| lines[step - 1]["skipped"] == true).collect();
        let &[skipped] = skipped.as_slice() else { panic!("{lines:?}") };
        let whole = (0..7).filter(|i| i + 1 != skipped);
        assert!(whole.into_iter().all(|i| lines[i]["grad_norm"].as_f64().is_some_and(|n| n > 0.0)), "{lines:?}");
        assert!(lines[skipped - 1]["loss"].is_null());
        // Around the step, every tensor of the checkpoint is the same to the bit.
        let of =
            |step: usize, file: &str| std::fs::read(folder.join(format!("{at}/step-{step:06}/{file}.safetensors")));
        for file in ["diffusion_pytorch_model", "state/optimizer"] {
            let after = of(skipped, file).expect("a checkpoint");
            if skipped > 1 {
                assert!(of(skipped - 1, file).expect("a checkpoint") == after, "{flags}: {file}");
            }
            assert!(skipped == 7 || of(skipped + 1, file).expect("a checkpoint") != after, "{flags}: {file}");
        }
        let optimizer = read(&folder.join(format!("{at}/step-000007/state/optimizer.safetensors")));
        assert_eq!(optimizer["step"], [6.0], "{flags}");
        // Broken off behind the skipped step, or at it, the run ends with the same bits.
        let unbroken = std::fs::read(folder.join(format!("{at}/step-000007/diffusion_pytorch_model.safetensors")))
            .expect("a checkpoint");
        said(go(&format!("--steps {skipped} --save broken{at}")));
        if skipped < 7 {
            said(go(&format!("--steps {} --resume broken{at} --save broken{at}", 7 - skipped)));
        }
        let broken = std::fs::read(folder.join(format!("broken{at}/step-000007/diffusion_pytorch_model.safetensors")));
        assert!(broken.expect("a checkpoint") == unbroken, "{flags}: a resumed run differs");
    }
}

/// A tensor of `--inputs` is refused before the first step; a task that trains nothing takes it with a warning.
#[test]
fn inputs_that_are_not_finite() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut noise = vec![0.0f32; 512];
    noise[511] = f32::NEG_INFINITY;
    let bytes = noise.iter().flat_map(|x| x.to_le_bytes()).collect();
    write(&folder.join("in.safetensors"), &[("noise", Dtype::F32, vec![1, 4, 2, 8, 8], bytes)]);
    compile(folder, "wan2.2.mm --preset tiny --batch 1");
    let place = "in.safetensors: `noise`: element [0, 3, 1, 7, 7] is -inf";
    assert!(refused(mmrun(folder, "plan.bin --inputs in.safetensors --save s")).contains(place));
    assert!(!folder.join("s").exists());
    let told = said(mmrun(folder, "plan.bin --inputs in.safetensors --steps 2 --on-nan skip --outputs o.safetensors"));
    assert!(told.contains(place) && told.contains("2 of 2 steps updated nothing"), "{told}");
}
