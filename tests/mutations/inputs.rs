//! Sound inputs of each kind, and what the compiler does with one.

use std::path::{Path, PathBuf};

use diag::Sources;
use passes::{Context, Form, Pipeline};
use plan::{Plan, sample};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Model,
    Graph,
    Programs,
    /// One section of a plan, in its own encoding: what checksums do not keep out.
    Plan,
}

impl Kind {
    pub const fn ending(self) -> &'static str {
        match self {
            Kind::Model => ".mm",
            Kind::Graph => ".ir",
            Kind::Programs => ".prog",
            Kind::Plan => ".programs",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Input {
    pub kind: Kind,
    pub bytes: Vec<u8>,
}

/// Files below a folder of the project, in order.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut out = vec![];
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder)];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                out.push(path);
            }
        }
    }
    out.sort();
    out
}

/// All of them by turns, so that no kind waits for another.
pub fn all() -> Vec<Input> {
    let read = |kind, paths: Vec<PathBuf>| -> Vec<Input> {
        paths.iter().map(|path| Input { kind, bytes: std::fs::read(path).expect("a file") }).collect()
    };
    let plans = [sample::line(), sample::grid(), sample::two_lanes()];
    let plans = plans.iter().map(|plan| Input {
        kind: Kind::Plan,
        bytes: serde_json::to_vec(&plan.programs).expect("programs that can be written"),
    });
    let kinds = [
        read(Kind::Model, files("models", "mm")),
        read(Kind::Graph, files("tests/passes", "ir")),
        read(Kind::Programs, files("tests/passes", "prog")),
        plans.collect(),
    ];
    let most = kinds.iter().map(Vec::len).max().unwrap_or(0);
    (0..most).flat_map(|i| kinds.iter().map(move |kind| kind[i % kind.len()].clone())).collect()
}

/// What a graph of several ranks goes through, and the programs after it.
const GRAPH: &str = "shard | partition | simplify | overlap";
const PROGRAMS: &str = "prefetch | in-place | hide-comm | bucket | lanes | liveness | allocate";

impl Input {
    /// Hands it to the compiler, and looks at what comes.
    pub fn run(&self) {
        let text = String::from_utf8_lossy(&self.bytes);
        match self.kind {
            Kind::Model => model(&text),
            Kind::Graph => {
                if let Ok(module) = ir::parse(&text)
                    && ir::verify(&module).is_ok()
                {
                    pass(Form::Graph(module), GRAPH);
                }
            }
            Kind::Programs => {
                if let Ok(module) = program::parse(&text)
                    && program::verify(&module).is_ok()
                {
                    pass(Form::Programs(module), PROGRAMS);
                }
            }
            Kind::Plan => {
                for sound in [sample::line(), sample::grid(), sample::two_lanes()] {
                    if let Ok(programs) = serde_json::from_slice(&self.bytes) {
                        drop(plan::verify(&Plan { programs, ..sound }));
                    }
                }
            }
        }
    }
}

fn pass(mut form: Form, pipeline: &str) {
    let pipeline = Pipeline::parse(pipeline).expect("a pipeline");
    let mut cx = Context::default();
    if pipeline.run_on(&mut form, &mut cx, |_, _| {}).is_ok() {
        assert!(!form.to_string().is_empty());
    }
}

/// Reads a file that a published model uses.
fn used(name: &str, _: eval::Origin) -> Option<eval::Sibling> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models").join(name);
    let text = std::fs::read_to_string(path).ok()?;
    Some(eval::Sibling { path: name.into(), text, origin: eval::Origin::BuiltIn })
}

fn model(text: &str) {
    for task in ["forward", "train"] {
        let mut sources = Sources::default();
        let file = sources.add("mutated.mm", text);
        let options = eval::Options { preset: Some("tiny".into()), task: task.into(), ..eval::Options::default() };
        match eval::evaluate(&mut sources, file, &options, &mut used) {
            Ok(evaluated) => ir::verify(&evaluated.module).unwrap_or_else(|e| panic!("unsound: {e:?}")),
            Err(errors) => {
                let said = diag::render(&errors, &sources, false);
                assert!(!said.contains("fault in mmc"), "{said}");
            }
        }
    }
}
