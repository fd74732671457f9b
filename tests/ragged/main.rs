//! Ragged axes as a user meets them: pictures of any number and size go with their samples to replicas and micro-batches.

use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};
use safetensors::tensor::{Dtype, TensorView};
use tests::binaries::{command, run as finish};
use tests::outputs::{Tensors, distance, near, read};

/// Rows and columns of patches in the pictures of each sample: none, one, five.
const PICTURES: [&[[i64; 2]]; 8] = [
    &[],
    &[[2, 2]],
    &[[2, 1], [2, 2], [1, 2], [2, 2], [2, 2]],
    &[[3, 2]],
    &[],
    &[[1, 4], [2, 1]],
    &[[4, 3], [2, 2]],
    &[[2, 3]],
];
const TOKENS: usize = 12;
const CHANNELS: usize = 6;
/// Room for all pictures in one data group.
const ROOM: &str = "--set IMAGES=20 --set PATCHES=80";

const MESHES: &[&str] = &[
    "--microbatches 4",
    "--dp 2 --set IMAGES=10",
    "--fsdp 2 --set IMAGES=10",
    "--dp 2 --zero 1 --set IMAGES=10 --set PATCHES=51",
    "--cp 2 --set IMAGES=20 --set PATCHES=80",
    "--tp 2 --set IMAGES=20 --set PATCHES=80",
    "--pp 2 --microbatches 2 --set IMAGES=12",
    "--dp 2 --microbatches 2",
    "--dp 2 --fsdp 2 --microbatches 2",
    "--pp 2 --fsdp 2 --microbatches 4",
    "--tp 2 --cp 2 --dp 2 --microbatches 2",
];

/// Of two towers; a pipeline is cut in either.
const TOWER_MESHES: &[&str] = &[
    "--microbatches 4",
    "--dp 2 --set IMAGES=8",
    "--fsdp 2 --set IMAGES=8",
    "--cp 2 --set IMAGES=12",
    "--cp 2 --ulysses 1 --set IMAGES=12",
    "--tp 2 --set IMAGES=12",
    "--pp 2 --microbatches 2 --set IMAGES=8",
    "--pp 3 --microbatches 4",
    "--pp 2 --tp 2 --fsdp 2 --microbatches 2",
    "--dp 2 --fsdp 2 --recompute full",
];

/// A model of a test: its file, what it takes, and settings that give all pictures room in one data group.
#[derive(Clone, Copy)]
struct Model {
    file: &'static str,
    samples: fn(std::ops::Range<usize>, Option<usize>) -> Vec<Tensor>,
    room: &'static str,
}

const PATCHES: Model = Model { file: "pictures.mm", samples, room: ROOM };
const TOWERS: Model = Model { file: "../meshes/pictured_towers.mm", samples: of_equal_size, room: "--set IMAGES=12" };

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = vec![];
    for (model, meshes) in [(PATCHES, MESHES), (TOWERS, TOWER_MESHES)] {
        for &mesh in meshes {
            let file = model.file.rsplit('/').next().unwrap_or_default();
            let name = format!("{file}: {}", mesh.replace("--", ""));
            trials.push(Trial::test(name, move || meshes_equal_one_rank(model, mesh)));
        }
    }
    trials.push(Trial::test("the graph does not grow with depth", graphs_stay_small));
    trials.push(Trial::test("a sample alone gives what it gives in a batch", samples_are_apart));
    trials.push(Trial::test("room that is not needed changes no bit", room_is_free));
    trials.push(Trial::test("records give what inputs give", records_are_inputs));
    trials.push(Trial::test("refusals", refusals));
    libtest_mimic::run(&arguments, trials).exit();
}

fn meshes_equal_one_rank(model: Model, mesh: &str) -> Result<(), Failed> {
    let work = tempfile::tempdir()?;
    let inputs = write(work.path(), "inputs", &(model.samples)(0..8, None))?;
    let train = |flags: &str| -> Result<Tensors, Failed> {
        let plan = compile(work.path(), model, "train", &format!("--batch 8 --optim clip=0.5 {flags}"))?;
        run(work.path(), &plan, &["--inputs", &inputs, "--steps", "3", "--emit", "loss,grads,params"])
    };
    let (one, many) = (train(model.room)?, train(mesh)?);
    Ok(near(&one, &many, &[("loss", 1e-6), ("grad/", 1e-5), ("param/", 5e-5)])?)
}

fn samples_are_apart() -> Result<(), Failed> {
    let work = tempfile::tempdir()?;
    let logits = |range: std::ops::Range<usize>, flags: &str| -> Result<Vec<f64>, Failed> {
        let inputs = write(work.path(), "some", &unlabelled(samples(range.clone(), None)))?;
        let plan = compile(work.path(), PATCHES, "forward", &format!("--batch {} {flags}", range.len()))?;
        let mut out = run(work.path(), &plan, &["--inputs", &inputs])?;
        Ok(out.remove("logits").unwrap_or_default())
    };
    let whole = logits(0..8, ROOM)?;
    let alone: Vec<f64> = (0..8).map(|i| logits(i..i + 1, "")).collect::<Result<Vec<_>, _>>()?.concat();
    let replicas = logits(0..8, "--dp 2 --set IMAGES=10")?;
    for (other, what) in [(alone, "alone"), (replicas, "on two replicas")] {
        let apart = distance(&whole, &other);
        if apart.is_nan() || apart > 1e-6 {
            return Err(format!("samples {what} give logits {apart:.1e} apart").into());
        }
    }
    // That pictures count at all: those of the third sample are others.
    let other = write(work.path(), "changed", &unlabelled(samples(0..8, Some(2))))?;
    let plan = compile(work.path(), PATCHES, "forward", &format!("--batch 8 {ROOM}"))?;
    let changed = run(work.path(), &plan, &["--inputs", &other])?.remove("logits").unwrap_or_default();
    let each = whole.len() / 8;
    for (sample, (a, b)) in whole.chunks(each).zip(changed.chunks(each)).enumerate() {
        if (a == b) != (sample != 2) {
            return Err(format!("the pictures of sample 2 changed, and sample {sample} gives {a:?} and {b:?}").into());
        }
    }
    Ok(())
}

fn room_is_free() -> Result<(), Failed> {
    let work = tempfile::tempdir()?;
    let inputs = write(work.path(), "inputs", &unlabelled(samples(1..4, None)))?;
    let forward = |flags: &str| -> Result<Tensors, Failed> {
        let plan = compile(work.path(), PATCHES, "forward", &format!("--batch 3 {flags}"))?;
        run(work.path(), &plan, &["--inputs", &inputs])
    };
    let (tight, roomy) = (forward("--set IMAGES=7 --set PATCHES=26")?, forward("--set IMAGES=30 --set PATCHES=100")?);
    if tight == roomy { Ok(()) } else { Err("more room gives other bits".into()) }
}

fn records_are_inputs() -> Result<(), Failed> {
    let work = tempfile::tempdir()?;
    let inputs = write(work.path(), "inputs", &samples(0..8, None))?;
    let records = work.path().join("records");
    std::fs::create_dir(&records)?;
    for sample in 0..8 {
        write(&records, &format!("{sample}"), &record(samples(sample..sample + 1, None)))?;
    }
    // Records come in another order, which a sum over all does not see.
    for flags in [ROOM, "--dp 2 --microbatches 2 --set IMAGES=7 --set PATCHES=40"] {
        let plan = compile(work.path(), PATCHES, "train", &format!("--batch 8 {flags}"))?;
        let emit = ["--steps", "1", "--emit", "loss,grads"];
        let given = run(work.path(), &plan, &[&["--inputs", &inputs], &emit[..]].concat())?;
        let folder = records.display().to_string();
        let read = run(work.path(), &plan, &[&["--data", &folder], &emit[..]].concat())?;
        near(&given, &read, &[("loss", 1e-6), ("grad/", 1e-5)])?;
    }
    Ok(())
}

/// Towers of layers of two kinds are periods of repeated calls.
fn graphs_stay_small() -> Result<(), Failed> {
    let model = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("meshes/pictured_towers.mm");
    let nodes = |layers: &str| -> Result<String, Failed> {
        let layers = [format!("visual.LAYERS={layers}"), format!("LAYERS={layers}")];
        let mut check = command("mmc");
        check.arg("check").arg(&model).args(["--batch", "4", "--set", "visual.PLAIN=0"]);
        let said = finish(check.args(["--set", &layers[0], "--set", &layers[1]]))?.stdout;
        let said = String::from_utf8_lossy(&said).into_owned();
        Ok(said.lines().find(|line| line.contains("nodes in")).unwrap_or_default().to_string())
    };
    let (few, many) = (nodes("8")?, nodes("40")?);
    if few == many && few.contains("nodes") { Ok(()) } else { Err(format!("8 layers: {few}; 40: {many}").into()) }
}

/// What is wrong with data is said before the step.
fn refusals() -> Result<(), Failed> {
    let work = tempfile::tempdir()?;
    let refused = |flags: &str, inputs: &str, part: &str| -> Result<(), Failed> {
        let plan = compile(work.path(), PATCHES, "train", flags)?;
        let output = command("mmrun").arg(plan).args(["--inputs", inputs]).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() || !said.contains(part) {
            return Err(format!("not said: {part}\n{said}").into());
        }
        Ok(())
    };
    let inputs = write(work.path(), "inputs", &samples(0..8, None))?;
    let room =
        "data group 0 (samples 0 to 3): 7 rows of IMAGES, and the plan has room for 4; compile with --set IMAGES=7";
    refused("--batch 8 --microbatches 2 --set IMAGES=4", &inputs, room)?;
    let room = "data group 1 (samples 4 to 7): 28 rows of PATCHES, and the plan has room for 27; compile with --set PATCHES=28";
    refused("--batch 8 --dp 2 --set IMAGES=7 --set PATCHES=27", &inputs, room)?;
    let fewer = write(work.path(), "fewer", &shortened(samples(0..8, None), "grid"))?;
    let no_picture = "sample 7 has 3 more elements 9 in `input_ids`, and data give 11 rows of IMAGES";
    refused(&format!("--batch 8 {ROOM}"), &fewer, no_picture)?;
    let short = write(work.path(), "short", &shortened(samples(0..8, None), "pixels"))?;
    refused(&format!("--batch 8 {ROOM}"), &short, "data give 53 rows of PATCHES, and rows of IMAGES have 54")?;
    Ok(())
}

fn compile(work: &Path, model: Model, task: &str, flags: &str) -> Result<PathBuf, Failed> {
    let plan = work.join("plan.bin");
    let model = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("ragged").join(model.file);
    let mut compile = command("mmc");
    compile.arg("compile").arg(model).args(["--task", task]).args(flags.split_whitespace()).arg("-o").arg(&plan);
    finish(&mut compile)?;
    Ok(plan)
}

fn run(work: &Path, plan: &Path, flags: &[&str]) -> Result<Tensors, Failed> {
    let out = work.join("out.safetensors");
    let mut execute = command("mmrun");
    finish(execute.arg(plan).args(flags).args(["--timeout", "60"]).arg("--outputs").arg(&out))?;
    Ok(read(&out)?)
}

/// A tensor of a file: its name, type, shape and bytes.
type Tensor = (&'static str, Dtype, Vec<usize>, Vec<u8>);

/// Samples as the class takes them: all pictures in one list, all patches in another. Those of `changed` have other pixels.
fn samples(range: std::ops::Range<usize>, changed: Option<usize>) -> Vec<Tensor> {
    let (mut ids, mut labels, mut grid, mut pixels): (Vec<i64>, Vec<i64>, Vec<i64>, Vec<f32>) = Default::default();
    for sample in range.clone() {
        let pictures = PICTURES[sample];
        let mut left: i64 = pictures.iter().map(|[h, w]| h * w / 2).sum();
        for token in 0..TOKENS {
            let is_image = left > 0 && (token + sample) % 7 != 3;
            left -= i64::from(is_image);
            let id = 10 + ((sample * 31 + token * 17 + token * token) % 22) as i64;
            ids.push(if is_image { 9 } else { id });
            labels.push(if token < sample { -100 } else { id });
        }
        assert_eq!(left, 0, "sample {sample} has room for its pictures");
        for (i, [h, w]) in pictures.iter().enumerate() {
            grid.extend([*h, *w]);
            let salt = sample * 91 + i * 13 + usize::from(changed == Some(sample)) * 5;
            pixels.extend((0..(h * w) as usize * CHANNELS).map(|k| ((salt + k * 7) % 19) as f32 / 9.5 - 1.0));
        }
    }
    let bytes = |values: &[i64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let text = vec![range.len(), TOKENS];
    let pixel_bytes = pixels.iter().flat_map(|v| v.to_le_bytes()).collect();
    vec![
        ("input_ids", Dtype::I64, text.clone(), bytes(&ids)),
        ("labels", Dtype::I64, text, bytes(&labels)),
        ("grid", Dtype::I64, vec![grid.len() / 2, 2], bytes(&grid)),
        ("pixels", Dtype::F32, vec![pixels.len() / CHANNELS, CHANNELS], pixel_bytes),
    ]
}

/// Samples whose pictures have one size and take one token each.
fn of_equal_size(range: std::ops::Range<usize>, _: Option<usize>) -> Vec<Tensor> {
    let (mut ids, mut labels, mut pixels): (Vec<i64>, Vec<i64>, Vec<f32>) = Default::default();
    for sample in range.clone() {
        let mut left = PICTURES[sample].len();
        for picture in 0..left {
            pixels.extend((0..30).map(|k| ((sample * 91 + picture * 13 + k * 7) % 19) as f32 / 9.5 - 1.0));
        }
        for token in 0..TOKENS {
            let is_image = left > 0 && (token + sample) % 3 != 1;
            left -= usize::from(is_image);
            let id = 10 + ((sample * 31 + token * 17 + token * token) % 22) as i64;
            ids.push(if is_image { 9 } else { id });
            labels.push(if token < sample { -100 } else { id });
        }
    }
    let bytes = |values: &[i64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let pixel_bytes = pixels.iter().flat_map(|v| v.to_le_bytes()).collect();
    vec![
        ("input_ids", Dtype::I64, vec![range.len(), TOKENS], bytes(&ids)),
        ("labels", Dtype::I64, vec![range.len(), TOKENS], bytes(&labels)),
        ("pixels", Dtype::F32, vec![pixels.len() / 30, 5, CHANNELS], pixel_bytes),
    ]
}

/// The same without labels.
fn unlabelled(mut tensors: Vec<Tensor>) -> Vec<Tensor> {
    tensors.retain(|(name, ..)| *name != "labels");
    tensors
}

/// The same without the last row of one tensor.
fn shortened(mut tensors: Vec<Tensor>, name: &str) -> Vec<Tensor> {
    for (_, _, shape, bytes) in tensors.iter_mut().filter(|(n, ..)| *n == name) {
        bytes.truncate(bytes.len() / shape[0] * (shape[0] - 1));
        shape[0] -= 1;
    }
    tensors
}

/// A sample as a record: without the dim of samples, and without pictures where it has none.
fn record(mut tensors: Vec<Tensor>) -> Vec<Tensor> {
    tensors.retain(|(_, _, shape, _)| shape[0] > 0);
    let text = |t: &&mut Tensor| t.2[1] == TOKENS;
    for (_, _, shape, _) in tensors.iter_mut().filter(text) {
        shape.remove(0);
    }
    tensors
}

fn write(folder: &Path, name: &str, tensors: &[Tensor]) -> Result<String, Failed> {
    let path = folder.join(format!("{name}.safetensors"));
    let mut views = vec![];
    for (name, dtype, shape, bytes) in tensors {
        views.push((*name, TensorView::new(*dtype, shape.clone(), bytes)?));
    }
    std::fs::write(&path, safetensors::serialize(views, None)?)?;
    Ok(path.display().to_string())
}
