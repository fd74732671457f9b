//! What a plan does not depend on: how its model's path is spelled.

use std::path::Path;
use std::process::Command;

fn mmc(folder: &Path, words: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mmc"));
    let output = command.current_dir(folder).args(words.split_whitespace()).output().expect("mmc");
    assert!(output.status.code().is_some_and(|code| code <= 2), "{words}: {}", output.status);
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The same bytes from any folder and by any spelling; a message shows the path that was given.
#[test]
fn the_spelling_of_a_path() {
    let (folder, elsewhere) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a model");
    let model = "use mm::prelude::*;
use super::part::scaled;
dims! { B, L = 6, DIM = 8 }
#[derive(Module)]
pub struct Net { up: Linear }
impl Net { pub fn new() -> Self { Self { up: linear(DIM, DIM) } } }
pub fn train(net: &Net, x: Tensor![B, L, DIM; f32]) -> Tensor![; f32] { scaled(net.up.forward(x.cast(work))).cast(f32).mean() }
pub fn plan(p: &mut Plan) { p.shard(B, \"dp\"); }
";
    let part = "use mm::prelude::*;\npub fn scaled(x: Tensor) -> Tensor {\n    (x * 3.0).silu()\n}\n";
    write("net.mm", model);
    write("part.mm", part);
    write("wrong.mm", &model.replace("part", "broken"));
    write("broken.mm", &part.replace("silu", "sliu"));
    write("other.mm", "use mm::prelude::*;\npub fn plan(p: &mut Plan) { p.shard(B, \"dp\"); }\n");
    let compile = |from: &Path, model: &str, other: &str| {
        let plan = elsewhere.path().join("plan.bin");
        let line = format!("compile {model} --plan {other} --target none --dp 2 -o {}", plan.display());
        let (done, said) = mmc(from, &line);
        assert!(done, "{said}");
        std::fs::read(plan).expect("a plan")
    };
    let at = |name: &str| folder.path().join(name).display().to_string();
    let bytes = compile(folder.path(), "net.mm", "other.mm");
    assert!(bytes == compile(folder.path(), "./net.mm", "./other.mm"), "./ changes the plan");
    assert!(bytes == compile(elsewhere.path(), &at("net.mm"), &at("other.mm")), "the folder changes the plan");
    let wrong = at("wrong.mm");
    let (_, said) = mmc(elsewhere.path(), &format!("check {wrong}"));
    // The mistake is in the file beside it.
    assert!(said.contains(&at("broken.mm")) && said.contains(&wrong), "{said}");
}
