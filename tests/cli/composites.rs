//! Classes that have the model as a part: its config and its weights lie inside those of the class
//! (`tests/goldens/composites.py`).

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;
use tests::binaries::{command, run};
use tests::outputs::{distance, read};

fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// A folder with the class's, called `published`, and the model that claims its part.
fn opened(case: &str, model: &str) -> tempfile::TempDir {
    let work = tempfile::tempdir().expect("a folder");
    fs::create_dir(work.path().join("published")).expect("made");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(here("goldens/composites").join(case).join(file), work.path().join("published").join(file))
            .expect("copied");
    }
    fs::copy(
        here("goldens/composites").join(case).join("expected.safetensors"),
        work.path().join("expected.safetensors"),
    )
    .expect("copied");
    // Inputs are taken by their names: what else the file holds is in one of its own.
    let bytes = fs::read(work.path().join("expected.safetensors")).expect("there");
    let all = SafeTensors::deserialize(&bytes).expect("tensors");
    for (file, names) in [("forward.safetensors", &["input_ids"][..]), ("train.safetensors", &["input_ids", "labels"])]
    {
        let tensors = names.iter().map(|name| (*name, all.tensor(name).expect("there")));
        safetensors::serialize_to_file(tensors, None, &work.path().join(file)).expect("written");
    }
    fs::copy(here("cli/models").join(model), work.path().join(model)).expect("copied");
    work
}

fn told(work: &Path, program: &str, words: &str) -> String {
    let output = command(program).current_dir(work).args(words.split_whitespace()).output().expect("runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let told: Vec<&str> = told
        .lines()
        .filter(|line| !["ready after", "step 1/1", "checked in"].iter().any(|w| line.contains(w)))
        .collect();
    format!("$ {program} {words}  [{}]\n{}\n", output.status.code().unwrap_or(-1), told.join("\n"))
}

fn done(work: &Path, program: &str, words: &str) {
    run(command(program).current_dir(work).args(words.split_whitespace())).expect("runs");
}

/// Every tensor of a folder, by its bytes.
fn tensors(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()) {
        if entry.extension().is_some_and(|e| e == "safetensors") {
            let bytes = fs::read(&entry).expect("read");
            let all = SafeTensors::deserialize(&bytes).expect("tensors");
            found.extend(all.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())));
        }
    }
    found.sort();
    found
}

#[test]
fn a_part_computes_what_the_class_does() {
    for (case, model) in [("omni", "thinker.mm"), ("vl", "vl_text.mm")] {
        let work = opened(case, model);
        let at = |file: &str| work.path().join(file);
        let compile = format!("compile {model} --config published --batch 2 -o");
        done(work.path(), "mmc", &format!("{compile} forward.bin --task forward"));
        done(
            work.path(),
            "mmrun",
            "forward.bin --weights published --inputs forward.safetensors --outputs out.safetensors",
        );
        let (expected, out) =
            (read(&at("expected.safetensors")).expect("there"), read(&at("out.safetensors")).expect("there"));
        let apart = distance(&expected["logits"], &out["logits"]);
        assert!(apart < 2e-6, "{case}: logits are {apart:e} apart");
        done(work.path(), "mmc", &format!("{compile} train.bin --optim kind=sgd,lr=0"));
        done(
            work.path(),
            "mmrun",
            "train.bin --weights published --inputs train.safetensors --outputs out.safetensors --emit grads --save c",
        );
        let out = read(&at("out.safetensors")).expect("there");
        for (name, expected) in expected.iter().filter(|(name, _)| name.starts_with("grad/") || *name == "loss") {
            let apart = distance(expected, &out[name]);
            assert!(apart < 2e-5, "{case}: {name} is {apart:e} apart");
        }
        // Nothing was learnt: what is saved is the class's folder again, with its other parts.
        let step = at("c/step-000001");
        assert_eq!(tensors(&at("published")), tensors(&step), "{case}");
        let config = |folder: &Path| -> Value {
            serde_json::from_slice(&fs::read(folder.join("config.json")).expect("there")).expect("JSON")
        };
        assert_eq!(config(&at("published")), config(&step), "{case}");
        // It is opened again, gone on from, and goes on alone.
        done(work.path(), "mmrun", "train.bin --weights c/step-000001 --inputs train.safetensors");
        fs::remove_dir_all(at("published")).expect("gone");
        done(work.path(), "mmrun", "train.bin --resume c --inputs train.safetensors --save c --keep 1");
        assert_eq!(tensors(&at("c/step-000002")), tensors(&opened(case, model).path().join("published")), "{case}");
    }
}

/// Older releases have other names, which are aliases.
#[test]
fn other_beginnings_of_names_are_known_or_told() {
    let work = opened("vl", "vl_text.mm");
    let published = work.path().join("published/model.safetensors");
    let renamed = |from: &str, to: &str| {
        let bytes = fs::read(here("goldens/composites/vl/model.safetensors")).expect("there");
        let all = SafeTensors::deserialize(&bytes).expect("tensors");
        let tensors = all.tensors().into_iter().map(|(name, view)| (name.replace(from, to), view));
        safetensors::serialize_to_file(tensors, None, &published).expect("written");
    };
    let mut shown = told(work.path(), "mmc", "compile vl_text.mm --config published --task forward --batch 2 -o p.bin");
    shown =
        shown.lines().filter(|line| line.starts_with('$') || line.contains("warning")).collect::<Vec<_>>().join("\n")
            + "\n";
    for (from, to) in [
        ("model.language_model.", "model."),
        ("model.language_model.", "language_model.model."),
        ("model.language_model.", "text.body."),
        ("model.visual.", "model.ears."),
    ] {
        renamed(from, to);
        let words = "p.bin --weights published --inputs forward.safetensors";
        shown += &format!("\n{from} is {to}\n{}", told(work.path(), "mmrun", words));
    }
    let part = serde_json::json!({"architectures": ["Qwen3VLForConditionalGeneration"], "vision_config": {"depth": 1}});
    fs::write(work.path().join("published/config.json"), part.to_string()).expect("written");
    shown += &format!("\n{}", told(work.path(), "mmc", "check vl_text.mm --config published"));
    insta::assert_snapshot!(shown);
}
