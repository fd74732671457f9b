//! Built-in files of layers, and those beside a model.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn mmc(folder: &Path, words: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mmc"));
    command.current_dir(folder).args(words.split_whitespace()).output().expect("mmc")
}

fn done(folder: &Path, words: &str) -> String {
    let output = mmc(folder, words);
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn refused(folder: &Path, words: &str) -> String {
    let output = mmc(folder, words);
    assert!(!output.status.success(), "{words} is taken");
    String::from_utf8(output.stderr).expect("text")
}

/// What `--source` prints is a model wherever it is saved, and the same one.
#[test]
fn a_printed_model_works_elsewhere() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["wan2.2.mm", "qwen3.mm"] {
        fs::write(folder.path().join("mine.mm"), done(folder.path(), &format!("models {name} --source")))
            .expect("a file");
        let manifest = |model: &str| done(folder.path(), &format!("manifest {model} --preset tiny"));
        assert_eq!(manifest("mine.mm"), manifest(name));
    }
}

/// A file beside the model goes before a built-in one, but not for what is built in.
#[test]
fn own_files_go_first_for_own_models() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("layers")).expect("a folder");
    fs::write(at("mine.mm"), done(folder.path(), "models qwen3 --source")).expect("a file");
    // The built-in decoder uses this one; the file of that name is none of its.
    fs::write(at("layers/gated_mlp.mm"), "no file").expect("a file");
    done(folder.path(), "check mine.mm --preset tiny");
    let own = done(folder.path(), "models layers/text_decoder.mm --source");
    fs::write(at("layers/text_decoder.mm"), own).expect("a file");
    let said = refused(folder.path(), "check mine.mm --preset tiny");
    assert!(said.contains("layers/gated_mlp.mm:1:"), "{said}");
    done(folder.path(), "check qwen3.mm --preset tiny");
    let own = done(folder.path(), "models layers/gated_mlp.mm --source").replace("swiglu", "swigglu");
    fs::write(at("layers/gated_mlp.mm"), own).expect("a file");
    let said = refused(folder.path(), "check mine.mm --preset tiny");
    assert!(said.contains("there is no `swigglu` here") && said.contains("did you mean `swiglu`?"), "{said}");
}
