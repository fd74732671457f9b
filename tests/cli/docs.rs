//! The pages that show commands: each command is run, and prints what the page says.
//!
//! `TRYCMD=overwrite cargo test -p tests --test cli pages` writes the pages anew.

use std::path::Path;

use tests::binaries::{command, run};
use trycmd::TestCases;
use trycmd::schema::Bin;

/// Published folders that pages speak of.
const FOLDERS: [(&str, &str); 3] = [
    (
        "qwen3-small",
        r#"{"architectures": ["Qwen3ForCausalLM"], "head_dim": 8, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "rope_theta": 1000000, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "vocab_size": 128}"#,
    ),
    ("qwen3-gelu", r#"{"architectures": ["Qwen3ForCausalLM"], "hidden_act": "gelu"}"#),
    ("other", r#"{"architectures": ["GPT2LMHeadModel"]}"#),
];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The first model that a page shows.
fn first_model(page: &str) -> String {
    let text = std::fs::read_to_string(root().join(page)).expect("a page");
    let (_, rest) = text.split_once("```rust\n").expect("a model");
    rest.split_once("```").expect("its end").0.to_owned()
}

/// Runs the `console` blocks of a page beside `net.mm`.
fn check(page: &str, model: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("page.md");
    std::fs::copy(root().join(page), &copy).expect("a copy of the page");
    for side in ["page.in", "page.out"] {
        let side = folder.path().join(side);
        std::fs::create_dir(&side).expect("a folder");
        std::fs::write(side.join("net.mm"), model).expect("the model");
        for (name, config) in FOLDERS {
            std::fs::create_dir(side.join(name)).expect("a folder");
            std::fs::write(side.join(name).join("config.json"), config).expect("the config");
        }
    }
    let cases = TestCases::new();
    for name in ["mmc", "mmrun"] {
        cases.register_bin(name, Bin::Path(command(name).get_program().into()));
    }
    cases.case(&copy);
    cases.run();
    drop(cases);
    if std::env::var("TRYCMD").is_ok_and(|mode| mode == "overwrite") {
        std::fs::copy(&copy, root().join(page)).expect("the page, written anew");
    }
}

/// The value of `--target` that `mmc` takes are those that the page lists.
#[test]
fn the_page_lists_every_target() {
    let help = run(command("mmc").args(["compile", "--help"])).expect("mmc helps").stdout;
    let help = String::from_utf8(help).expect("text");
    let (_, rest) = help.split_once("--target").expect("the flag");
    let (_, rest) = rest.split_once("[possible values: ").expect("its values");
    let values = rest.split_once(']').expect("their end").0.split_whitespace().collect::<Vec<_>>().join(" ");
    let page = std::fs::read_to_string(root().join("docs/cli.md")).expect("a page");
    assert!(page.contains(&values), "docs/cli.md does not list {values}");
}

#[test]
fn pages_on_the_command_line() {
    check("docs/cli.md", &first_model("docs/mm.md"));
}

#[test]
fn pages_on_checkpoints() {
    check("docs/checkpoints.md", &first_model("docs/mm.md"));
}

#[test]
fn pages_on_differences() {
    check("docs/differences.md", &first_model("docs/mm.md"));
}

#[test]
fn pages_that_greet() {
    check("README.md", &first_model("README.md"));
}
