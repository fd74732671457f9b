//! `tests/passes/<pass>/<case>.prog` after the pass of the folder's name, or after the pipeline of its first line; and that
//! the programs of whole models read back from their text.

use std::fs;

use passes::{Context, Form, MemoryPolicy, Pipeline};
use tests::binaries::{command, model, run as run_command};

use crate::run;

/// The pipeline in a case's first line.
pub fn pipeline<'t>(text: &'t str, folder: &'t str) -> &'t str {
    text.lines().next().and_then(|line| line.strip_prefix("// passes: ")).unwrap_or(folder)
}

fn parse(text: &str) -> program::RankModule {
    match program::parse(text) {
        Ok(module) => module,
        Err(e) => {
            let line = text[..e.at.start.min(text.len())].matches('\n').count() + 1;
            panic!("line {line}: {}\n{}", e.message, text.lines().nth(line - 1).unwrap_or_default())
        }
    }
}

fn after(text: &str, pipeline: &str) -> String {
    let mut form = Form::Programs(parse(text));
    let mut cx = Context::default();
    match Pipeline::parse(pipeline).expect(pipeline).run_on(&mut form, &mut cx, |_, _| {}) {
        Ok(()) => form.to_string(),
        Err(e) => run::rendered(&e),
    }
}

#[test]
fn program_cases() {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        insta::glob!("*/*.prog", |path| {
            let text = fs::read_to_string(path).expect("a case");
            let folder = path.parent().and_then(|p| p.file_name()).expect("a folder").to_string_lossy().into_owned();
            let drawn = after(&text, pipeline(&text, &folder));
            if drawn.starts_with("ranks of") {
                assert_eq!(parse(&drawn).to_string(), drawn, "the text reads back");
            }
            insta::assert_snapshot!(drawn);
        });
    });
}

fn printed(flags: &str, pass: &str) -> String {
    let (name, flags) = flags.split_once(' ').expect("a model and its flags");
    let mut mmc = command("mmc");
    mmc.arg("ir").arg(model(name)).args(flags.split_whitespace()).args(["--target", "none", "--after", pass]);
    let output = run_command(&mut mmc).unwrap_or_else(|e| panic!("{e}"));
    String::from_utf8(output.stdout).expect("text")
}

/// Programs of whole models are read back from their text with nothing lost: the passes that follow make the same of it.
#[test]
fn whole_models_read_back() {
    for flags in [
        "wan2.2.mm --preset tiny --tp 2 --fsdp 2 --microbatches 2 --dtype bf16",
        "wan2.2.mm --preset tiny --set LAYERS=4 --pp 2 --schedule zb-h1 --cp 2",
        "qwen3.mm --preset tiny --set LAYERS=4 --pp 2 --virtual-stages 2 --microbatches 4",
        "wan2.2.mm --preset tiny --set LAYERS=4 --offload optimizer --recompute auto",
    ] {
        let start = if flags.contains("--pp") { "stages" } else { "unroll" };
        let text = printed(flags, start);
        assert_eq!(parse(&text).to_string(), text, "{flags}");
        let end = printed(flags, "allocate");
        assert_eq!(parse(&end).to_string(), end, "{flags}");
        if !flags.contains("--offload") {
            assert_eq!(after(&text, &passes::closing(&MemoryPolicy::default())), end, "{flags}");
        }
    }
}
