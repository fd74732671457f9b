//! What `--save` writes is what `save_pretrained` of the class writes: the same files, tensors and configs
//! (`tests/goldens/pretrained.py`). That the classes open it, `scripts/pretrained_oracle.py` shows.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::{Value, json};
use tests::binaries::{command, model, run};

/// What a folder holds, without the state of a run: tensor files by their headers, links, and texts by their bytes.
fn listing(folder: &Path) -> BTreeMap<String, Value> {
    let (mut open, mut found) = (vec![PathBuf::new()], BTreeMap::new());
    while let Some(inside) = open.pop() {
        for entry in fs::read_dir(folder.join(&inside)).expect("a folder").map(|e| e.expect("an entry")) {
            let inside = inside.join(entry.file_name());
            let (name, path) = (inside.to_string_lossy().into_owned(), entry.path());
            if path.is_dir() {
                if name != "state" {
                    open.push(inside);
                }
                continue;
            }
            let bytes = fs::read(&path).expect("read");
            let held = match name.ends_with(".safetensors") {
                true if path.is_symlink() => json!("a link"),
                true => header(&bytes),
                false => String::from_utf8(bytes).expect("a text").into(),
            };
            found.insert(name, held);
        }
    }
    found
}

fn header(bytes: &[u8]) -> Value {
    let (_, about) = SafeTensors::read_metadata(bytes).expect("a header");
    let tensors: BTreeMap<String, Value> =
        about.tensors().into_iter().map(|(name, info)| (name, json!([info.dtype, info.shape]))).collect();
    json!({ "metadata": about.metadata(), "tensors": tensors })
}

fn golden(case: &str) -> BTreeMap<String, Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/pretrained").join(case);
    let mut found = listing(&folder);
    let tensors = found.remove("listing.json").expect("the headers");
    let tensors: Value = serde_json::from_str(tensors.as_str().expect("a text")).expect("JSON");
    found.extend(tensors.as_object().expect("an object").clone());
    found
}

fn mmrun(here: &Path, words: &str) {
    run(command("mmrun").current_dir(here).args(words.split_whitespace())).expect("runs");
}

/// Trains a published folder of these texts, whose model begins with the values of initialisers, and saves it.
fn saved(case: &str, model: &str, here: &Path, sizes: &str) -> PathBuf {
    let published = here.join("published");
    for (name, held) in golden(case) {
        let path = published.join(&name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        // Weights of other parts of a pipeline are opened by nobody.
        fs::write(path, held.as_str().unwrap_or("another part's weights")).expect("written");
    }
    let mut mmc = command("mmc");
    mmc.current_dir(here).args(["compile", "published", "-o", "plan.bin"]);
    run(mmc.args(sizes.split_whitespace())).expect("compiles");
    mmrun(here, "plan.bin --save first");
    fs::copy(here.join("first/step-000001").join(Path::new(model).file_name().expect("a name")), published.join(model))
        .expect("the model's weights");
    mmrun(here, "plan.bin --weights published --save c");
    here.join("c/step-000001")
}

#[test]
fn a_saved_folder_is_that_of_save_pretrained() {
    let wan = "diffusion_pytorch_model.safetensors";
    for (case, model, sizes) in [
        ("qwen3", "model.safetensors", "--set S=5"),
        ("wan", wan, "--set F=2 --set H=4 --set W=4 --set S=3"),
        ("pipeline", "transformer/diffusion_pytorch_model.safetensors", "--set F=2 --set H=4 --set W=4 --set S=3"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let here = folder.path();
        let step = saved(case, model, here, sizes);
        let mut expect = golden(case);
        for (name, held) in &mut expect {
            if name.ends_with(".safetensors") && name != model {
                *held = json!("a link");
            }
        }
        assert_eq!(listing(&step), expect, "{case}");
        assert!(step.join("state/trainer.json").is_file() && step.join("state/optimizer.safetensors").is_file());
        // The folder is a model again, and so is the folder of the run.
        let again = command("mmc").current_dir(here).args(["check", "c/step-000001", "--task", "forward"]).output();
        let told = again.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).expect("mmc");
        assert!(told.contains("forward: sound"), "{told}");
        mmrun(here, "plan.bin --weights c --save d");
        assert_eq!(listing(&here.join("d/step-000001")), expect, "{case}");
        // What goes on from a checkpoint has its files, wherever they came from first.
        fs::rename(here.join("published"), here.join("moved")).expect("moved");
        mmrun(here, "plan.bin --resume c --save c");
        let next = listing(&here.join("c/step-000002"));
        let links = |name: &String| expect[name] != json!("a link");
        assert!(
            expect.keys().filter(|name| links(name)).all(|name| next.contains_key(name)),
            "{case}: {:?}",
            next.keys()
        );
    }
}

/// A run from initialisers has a config of the plan's figures.
#[test]
fn a_model_without_a_folder_gets_a_config() {
    let folder = tempfile::tempdir().expect("a folder");
    let here = folder.path();
    for (model, preset) in [("qwen3.mm", "tiny"), ("wan2.2.mm", "tiny")] {
        run(command("mmc").current_dir(here).args(["compile", model, "--preset", preset, "-o", "plan.bin"]))
            .expect("compiles");
        mmrun(here, "plan.bin --save c --save-over --save-dtype bf16");
        let mut check = command("mmc");
        let output = check.current_dir(here).args(["check", "c/step-000001"]).output().expect("mmc");
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        insta::assert_snapshot!(
            format!("config_of_{}", model.split(['.', '2']).next().unwrap_or_default()),
            fs::read_to_string(here.join("c/step-000001/config.json")).expect("a config")
        );
        mmrun(here, "plan.bin --weights c/step-000001");
    }
}

/// Checkpoints beside published weights are not taken in their place.
#[test]
fn a_folder_with_weights_of_its_own_gives_those() {
    let work = tempfile::tempdir().expect("a folder");
    let (plan, first, own) = (work.path().join("plan.bin"), work.path().join("first"), work.path().join("own"));
    let mut compile = command("mmc");
    compile.arg("compile").arg(model("qwen3.mm")).args(["--preset", "tiny", "--batch", "1", "--optim", "lr=0.1", "-o"]);
    run(compile.arg(&plan)).expect("compiles");
    run(command("mmrun").arg(&plan).args(["--steps", "1", "--save"]).arg(&first)).expect("a checkpoint");
    std::fs::rename(first.join("step-000001"), &own).expect("a folder with weights");
    let loss = |save: bool| {
        let out = work.path().join("out.safetensors");
        let mut execute = command("mmrun");
        execute.arg(&plan).arg("--weights").arg(&own).args(["--steps", "1"]).arg("--outputs").arg(&out);
        if save {
            execute.arg("--save").arg(&own);
        }
        run(&mut execute).expect("runs");
        tests::outputs::read(&out).expect("outputs")["loss"].clone()
    };
    let before = loss(true);
    assert!(own.join("latest").exists(), "a run saved to the folder");
    assert_eq!(loss(false), before);
}
