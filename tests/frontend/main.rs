//! The language of .mm files: the published models against PyTorch, their graphs, and what mistakes look like.

mod docs;
mod errors;
mod goldens;
mod graphs;
mod language;
mod libraries;
mod mutations;
mod ragged;
mod sampling;
mod words;

use diag::Sources;
use eval::{Evaluated, Options, Origin, Sibling};

/// A published model's text.
fn model(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models").join(name);
    std::fs::read_to_string(path).expect("a published model")
}

/// Reads a file that a published model uses.
fn used(name: &str, _: Origin) -> Option<Sibling> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models").join(name);
    let text = std::fs::read_to_string(path).ok()?;
    Some(Sibling { path: name.into(), text, origin: Origin::BuiltIn })
}

/// What a file evaluates to, or its rendered errors.
fn evaluate(name: &str, text: &str, options: &Options) -> Result<Evaluated, String> {
    let mut sources = Sources::default();
    let file = sources.add(name, text);
    eval::evaluate(&mut sources, file, options, &mut used).map_err(|errors| diag::render(&errors, &sources, false))
}

fn options(task: &str, preset: Option<&str>, set: &[(&str, &str)]) -> Options {
    Options {
        preset: preset.map(Into::into),
        set: set.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
        task: task.into(),
        ..Options::default()
    }
}
