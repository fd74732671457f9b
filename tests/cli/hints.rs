//! Mistakes that a message leads out of: names that are not there, meshes of which an axis does nothing, checkpoints whose
//! config was changed.

use std::fs;
use std::path::Path;

use tests::binaries::{command, run};

const NET: &str = "use mm::prelude::*;
dims! { B, L = 4, DIM = 8 }
#[derive(Module)]
pub struct Net {
    up: Linear,
}
impl Net {
    pub fn new() -> Self {
        Self { up: linear(DIM, DIM) }
    }
}
pub fn train(net: &Net, x: Tensor![B, L, DIM]) -> Tensor![; f32] {
    twice(net.up.forward(x)).cast(f32).square().mean()
}
pub fn plan(p: &mut Plan) {
    p.shard(B, \"dp\").fsdp([\"fsdp\", \"cp\"]);
}
";
const TWICE: &str = "fn twice(x: Tensor) -> Tensor {\n    x * 2.0\n}\n";

fn told(folder: &Path, program: &str, words: &str) -> String {
    let output = command(program).current_dir(folder).args(words.split_whitespace()).output().expect("runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    format!("$ {program} {words}  [{}]\n{told}\n", output.status.code().unwrap_or(-1))
}

#[test]
fn names_that_are_not_there() {
    let work = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: String| fs::write(work.path().join(name), text).expect("written");
    write("nothing.mm", format!("use super::layers::nothing;\n{NET}{TWICE}"));
    write("other.mm", format!("use mm::prelude::*;\n{TWICE}"));
    write("private.mm", format!("use super::other::twice;\n{NET}"));
    write("net.mm", format!("{NET}{TWICE}"));
    // Built-in files become more, and so do their instances.
    let known = told(work.path(), "mmc", "check qwen3.mm --preset tiny --set nope.FFN=3");
    assert!(known.contains("instances are `") && known.contains("`text_decoder`"), "{known}");
    let words = ["check nothing.mm", "check private.mm", "ir net.mm --after eval --batch 4 --dp 2 --tp 2 --cp 2"];
    let shown = words.map(|w| told(work.path(), "mmc", w)).join("\n");
    let (before, list) = shown.split_once("built in are ").expect("a list");
    let (list, behind) = list.split_once('\n').expect("its end");
    assert!(list.contains("`layers/rope.mm`") && list.contains("`layers/text_decoder.mm`"), "{list}");
    insta::assert_snapshot!(format!("{before}built in are ..\n{behind}"));
    write("other.mm", format!("use mm::prelude::*;\npub {TWICE}"));
    assert!(told(work.path(), "mmc", "check private.mm").contains("[0]"));
}

/// The folder of a run is that of its newest checkpoint; what goes on from one is held to its config.
#[test]
fn folders_of_checkpoints() {
    let work = tempfile::tempdir().expect("a folder");
    let here = work.path();
    run(command("mmc")
        .current_dir(here)
        .args(["compile", "qwen3.mm", "--preset", "tiny", "--set", "S=5", "-o", "p.bin"]))
    .expect("compiles");
    run(command("mmrun").current_dir(here).args(["p.bin", "--steps", "2", "--save", "c", "--save-every", "1"]))
        .expect("runs");
    let checked = command("mmc").current_dir(here).args(["check", "c", "--set", "S=5"]).output().expect("mmc");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let config = here.join("c/step-000002/config.json");
    let text = fs::read_to_string(&config).expect("there");
    assert!(text.contains("1000000.0"), "{text}");
    fs::write(&config, text.replace("1000000.0", "5000.0")).expect("written");
    let mut shown = told(here, "mmrun", "p.bin --resume c --save c");
    fs::write(here.join("c/latest"), "step-000009").expect("written");
    shown += &told(here, "mmc", "check c --set S=5");
    insta::assert_snapshot!(shown);
}
