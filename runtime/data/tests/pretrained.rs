//! Tests of saved models: files of a class, rounded weights with what a run goes on from, shards, and the first format.

use std::fs;
use std::path::Path;

use data::{
    Begin, Checkpoint, DataError, Folder, Origin, Pieces, Position, Pretrained, Share, Together, Weights, latest,
};
use plan::{Parameter, sample};
use serde_json::{Value, json};
use tempfile::tempdir;
use types::{DType, TensorType};

fn ty(text: &str) -> TensorType {
    text.parse().expect("a type")
}

fn parameters(names: &[&str]) -> Vec<Parameter> {
    let of = |name: &&str| {
        let mut parameter = sample::line().manifest.parameters.remove(0);
        (parameter.name, parameter.ty) = ((*name).into(), ty("f32[N:3]"));
        parameter
    };
    names.iter().map(of).collect()
}

/// Saves parameters of three values each, and one state.
fn save(folder: &Path, model: &Pretrained, values: &[(&str, [f32; 3])]) -> Result<(), DataError> {
    let (w, s) = (ty("f32[N:3]"), ty("i64[]"));
    let bytes: Vec<&[u8]> = values.iter().map(|(_, v)| bytemuck::cast_slice(v)).collect();
    let tensors: Vec<_> = values.iter().zip(&bytes).map(|((name, _), bytes)| Pieces::whole(name, &w, bytes)).collect();
    let step = [9; 8];
    let together = Together::alone();
    let open = Folder::open(folder, Begin::GoOn, 0, &together)?;
    let (plan_hash, model_name, preset) = ("ab".into(), "m.mm".into(), "tiny".into());
    let position = Position { step: 1, samples: 0, seed: 7, plan_hash, model: model_name, preset, data: None };
    open.save(&position, (&tensors, &[Pieces::whole("step", &s, &step)]), (model, 9), &together).map(drop)
}

fn read(checkpoint: &Checkpoint, name: &str) -> [f32; 3] {
    let mut out = [0; 12];
    checkpoint.parameter(name, &Share::whole(&ty("f32[N:3]")), &mut out).expect("read");
    bytemuck::cast(out)
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").file_name());
    let mut names: Vec<_> = entries.map(|n| n.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn rounded_weights_are_for_others_and_exact_ones_for_the_run() {
    let folder = tempdir().expect("a folder");
    let model = Pretrained::new(None, &parameters(&["a"]), &[], Some(DType::BF16)).expect("made");
    save(folder.path(), &model, &[("a", [1.0, 0.1, -3e38])]).expect("saved");
    let step = folder.path().join("step-000001");
    assert_eq!(files(&step), ["model.safetensors", "state"]);
    assert_eq!(files(&step.join("state")), ["optimizer.safetensors", "parameters.safetensors", "trainer.json"]);
    let (checkpoint, _) = latest(folder.path()).expect("opens");
    checkpoint.check([("a", &ty("f32[N:3]"))], [("step", &ty("i64[]"))]).expect("exact");
    assert_eq!(read(&checkpoint, "a"), [1.0, 0.1, -3e38]);
    let published = Weights::open(&step, &parameters(&["a"])).expect("opens");
    let mut out = [0; 12];
    published.load(&parameters(&["a"])[0], &Share::whole(&ty("f32[N:3]")), &mut out).expect("loads");
    assert_eq!(bytemuck::cast::<_, [f32; 3]>(out)[1], 0.100_097_656);
    // What the type does not reach is not written.
    let model = Pretrained::new(None, &parameters(&["a"]), &[], Some(DType::F16)).expect("made");
    let error = save(folder.path(), &model, &[("a", [1.0, 70_000.0, 0.0])]).expect_err("refused").to_string();
    assert!(error.contains("`a`: element 1 is not finite, or is too large for f16"), "{error}");
}

#[test]
fn shards_have_an_index_and_are_read_back() {
    let folder = tempdir().expect("a folder");
    let root = tempdir().expect("a folder");
    fs::create_dir(root.path().join("transformer")).expect("made");
    fs::write(root.path().join("transformer/config.json"), r#"{"_class_name": "Net"}"#).expect("written");
    let parts = vec![("transformer".to_string(), "transformer.".to_string())];
    let origin = Origin { root: root.path().into(), parts };
    let names = ["transformer.a", "transformer.b", "transformer.c"];
    let model = Pretrained::new(Some(&origin), &parameters(&names), &[], None).expect("made").in_files_of(24);
    save(folder.path(), &model, &names.map(|name| (name, [name.len() as f32; 3]))).expect("saved");
    let inside = folder.path().join("step-000001/transformer");
    let index = "diffusion_pytorch_model.safetensors.index.json";
    let shards = [1, 2].map(|i| format!("diffusion_pytorch_model-0000{i}-of-00002.safetensors"));
    assert_eq!(files(&inside), ["config.json", &shards[0], &shards[1], index]);
    let found: Value = serde_json::from_slice(&fs::read(inside.join(index)).expect("read")).expect("JSON");
    let expect =
        json!({"metadata": {"total_size": 36}, "weight_map": {"a": shards[0], "b": shards[0], "c": shards[1]}});
    assert_eq!(found, expect);
    let (checkpoint, _) = latest(folder.path()).expect("opens");
    let types = ty("f32[N:3]");
    checkpoint.check(names.map(|name| (name, &types)), [("step", &ty("i64[]"))]).expect("complete");
    assert_eq!(read(&checkpoint, "transformer.c"), [13.0; 3]);
    // As weights, of the folder of checkpoints too.
    for path in [folder.path().to_path_buf(), folder.path().join("step-000001"), inside] {
        let names: &[&str] = if path.ends_with("transformer") { &["a", "b", "c"] } else { &names };
        let weights = Weights::open(&path, &parameters(names)).expect("opens");
        weights.check(&parameters(names), &[]).expect("complete");
    }
    assert_eq!(checkpoint.origin().parts, origin.parts);
}

#[test]
fn the_first_format_is_read() {
    let folder = tempdir().expect("a folder");
    save(folder.path(), &Pretrained::default(), &[("a", [1.0, 2.0, 3.0])]).expect("saved");
    let step = folder.path().join("step-000001");
    let path = step.join("state/trainer.json");
    let mut trainer: Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
    trainer["format"] = json!(1);
    trainer["files"][1]["name"] = json!("optimizer.safetensors");
    fs::rename(step.join("state/optimizer.safetensors"), step.join("optimizer.safetensors")).expect("moved");
    fs::remove_dir_all(step.join("state")).expect("removed");
    fs::write(step.join("trainer.json"), trainer.to_string()).expect("written");
    let (checkpoint, _) = latest(folder.path()).expect("opens");
    checkpoint.check([("a", &ty("f32[N:3]"))], [("step", &ty("i64[]"))]).expect("complete");
    assert_eq!(read(&checkpoint, "a"), [1.0, 2.0, 3.0]);
    // A list may name no file elsewhere, and no format that is not known.
    for (key, value, told) in
        [("name", json!("../w"), "no file in the checkpoint"), ("format", json!(3), "format 3; this")]
    {
        let mut wrong = trainer.clone();
        if key == "name" {
            wrong["files"][0][key] = value
        } else {
            wrong[key] = value
        }
        fs::write(step.join("trainer.json"), wrong.to_string()).expect("written");
        let error = Checkpoint::open(&step).map(|_| ()).expect_err("refused").to_string();
        assert!(error.contains(told), "{error}");
    }
}
