//! Sizes and flags that make no sense are refused before anything is computed with them: whole messages, as a user sees
//! them. And what a plan does not depend on: how its model's path is spelled.

use std::path::{Path, PathBuf};
use std::process::Command;

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models")
}

fn mmc(folder: &Path, words: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mmc"));
    let output = command.current_dir(folder).args(words.split_whitespace()).output().expect("mmc");
    assert!(output.status.code().is_some_and(|code| code <= 2), "{words}: {}", output.status);
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What `mmc` says of each command line; none of them writes a plan.
fn refused(folder: &Path, lines: &[&str]) -> String {
    let folder_of_plans = tempfile::tempdir().expect("a folder");
    let plan = folder_of_plans.path().join("plan.bin");
    let each = lines.iter().map(|line| {
        let output =
            if line.starts_with("compile") { format!(" --target none -o {}", plan.display()) } else { String::new() };
        let (done, said) = mmc(folder, &format!("{line}{output}"));
        assert!(!done && !plan.exists(), "{line} is taken");
        format!("$ mmc {line}\n{said}")
    });
    each.collect::<Vec<_>>().join("\n")
}

#[test]
fn absurd_sizes() {
    let lines = [
        "check qwen3.mm --preset tiny --set S=1099511627776",
        "compile qwen3.mm --preset tiny --set S=1073741824",
        "compile qwen3.mm --preset tiny --set LAYERS=1000000",
        "compile qwen3.mm --preset tiny --set LAYERS=100000000",
        "manifest qwen3.mm --preset tiny --set LAYERS=100000000",
        "compile qwen3.mm --preset tiny --microbatches 4294967295",
        "compile qwen3.mm --preset tiny --microbatches 1000000",
        "compile qwen3.mm --preset tiny --dp 1048576 --microbatches 1048576",
        "compile qwen3.mm --preset tiny --cp 1000000",
        "compile qwen3.mm --preset tiny --cp 65536 --ulysses 1",
        "compile qwen3.mm --preset tiny --dp 4294967295",
        "compile qwen3.mm --preset tiny --dp 1048576 --tp 1048576 --fsdp 1048576",
        "compile qwen3.mm --preset tiny --pp 1000000",
        "compile qwen3.mm --preset tiny --pp 1024 --virtual-stages 1024",
        "compile qwen3.mm --preset tiny --pp 64",
        "compile qwen3.mm --preset tiny --batch 4294967295",
        "compile qwen3.mm --preset tiny --batch 1073741824 --set S=65536",
    ];
    insta::assert_snapshot!(refused(&models(), &lines));
}

#[test]
fn more_memory_than_any_machine_has() {
    let said = refused(&models(), &["compile wan2.2.mm --preset tiny --set S=1099511627776"]);
    for words in ["1408.0 TiB", "no machine has more than 64.0 TiB for a rank", "dit.mm:85:20", "over more ranks"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

/// Where no change can be enough, none is tried: each would take as long as the plan that does not fit.
#[test]
fn far_too_little_memory() {
    let lines = [
        ("compile qwen3.mm --preset tiny --fsdp 1048576 --memory 1000", "the operands of c", "784.0 MiB"),
        ("compile qwen3.mm --preset tiny --microbatches 100 --memory 2", "alone are ", "KiB"),
        ("compile wan2.2.mm --preset tiny --recompute auto --offload auto --memory 2", "alone are ", "KiB"),
        ("compile wan2.2.mm --preset tiny --fsdp 1048576 --memory 1000", "the operands of k", "192.0 MiB"),
    ];
    for (line, what, bytes) in lines {
        let said = refused(&models(), &[line]);
        let why = said.split_once("no changes were tried: ").map(|(_, why)| why.lines().next().unwrap_or(""));
        assert!(why.is_some_and(|why| why.contains(what) && why.contains(bytes)), "{line}: {said}");
    }
    let said = refused(&models(), &["compile qwen3.mm --preset tiny --memory 300KiB"]);
    assert!(said.contains("any of these would fit"), "{said}");
}

#[test]
fn flags() {
    let lines = [
        "compile qwen3.mm --preset tiny --set B=3 --batch 8",
        "compile qwen3.mm --preset tiny --set B=3 --set B=4",
        "compile qwen3.mm --preset tiny --set S=8 --set S=16",
        "compile qwen3.mm --preset tiny --set B=0",
        "compile qwen3.mm --preset tiny --batch 0",
        "compile qwen3.mm --preset tiny --set Q=64",
        "compile qwen3.mm --preset tiny --set S=-8",
        "compile qwen3.mm --preset tiny --set S=",
        "compile qwen3.mm --preset tiny --set S",
        "compile qwen3.mm --preset tniy",
        "compile qwen3.mm --preset tiny --task trian",
        "compile qwen3.mm --preset tiny --memory -1",
        "compile qwen3.mm --preset tiny --memory 1e30GiB",
        "compile qwen3.mm --preset tiny --memory nan",
        "compile qwen3.mm --preset tiny --seed -1",
        "compile qwen3.mm --preset tiny --overlap 99999999",
        "compile qwen3.mm --preset tiny --optim lr=nan",
        "compile qwen3.mm --preset tiny --optim lr=-1",
        "compile qwen3.mm --preset tiny --optim lr=1e300",
        "compile qwen3.mm --preset tiny --optim lr=1,lr=2",
        "compile qwen3.mm --preset tiny --optim schedule=cosine,warmup=9,total=9",
        "compile qwen3.mm --preset tiny --optim warmup=-1",
        "compile qwen3.mm --preset tiny --optim clip=inf",
        "compile qwen3.mm --preset tiny --optim lr=inf",
        "compile qwen3.mm --preset tiny --optim lr=0.1x,beta1=1,beta2=0,eps=-1e-8,weight_decay=-1,clip=-1",
        "compile qwen3.mm --preset tiny --optim kind=adam,schedule=linear,warmup=1.5,total=-1,working=maybe",
        "compile qwen3.mm --preset tiny --optim lr",
        "compile qwen3.mm --preset tiny --optim learning_rate=1,bta1=0.5",
        "compile qwen3.mm --preset tiny --optim lr=1}|inline|optimizer{lr=2",
        "compile qwen3.mm --preset tiny --cpu x86-64-v3",
        "compile qwen3.mm --preset tiny --cpu foo",
        "compile qwen3.mm --preset tiny --set EPS=-1",
        "compile qwen3.mm --preset tiny --set EPS=1e300",
        "compile qwen3.mm --preset tiny --set EPS=nan",
        "compile qwen3.mm --preset tiny --set THETA=0",
        "compile qwen3.mm --preset tiny --set THETA=-1",
        "compile wan2.2.mm --preset tiny --set THETA=0",
        "compile wan2.2.mm --preset tiny --set EPS=-1e-6",
        "compile qwen3.mm --preset tiny --microbatches 3 --batch 8",
        "compile qwen3.mm --preset tiny --dp 2 --dp 4",
        "compile qwen3.mm --preset tiny --tp 0",
        "compile qwen3.mm --preset tiny --tp -2",
        "compile qwen3.mm --preset tiny --tp 1.5",
    ];
    insta::assert_snapshot!(refused(&models(), &lines));
}

const EMPTY: &str = "// L is cut over four ranks, and has nothing in it.
module \"case\"
mesh [tp:4]

fn @forward(%0: f32[B:2, L:0, D:8]) {
  %1 = exp(%0) : f32[B:2, L:0, D:8]
  return %1
}
";

/// No pass sees an axis of size 0, whether text says so or an attribute makes it.
#[test]
fn graphs_in_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a graph");
    write("empty.ir", EMPTY);
    write(
        "made.ir",
        "fn @f() {\n  %0 = iota() {\"dim\":{\"name\":\"N\",\"size\":0},\"dtype\":\"f32\"} : f32[N:1]\n  return %0\n}\n",
    );
    let long = "fn @f(%0: f32[A:2]) {\n  %1 = exp(%0) : f32[A:2]\n  return %1\n}\nfn @g(%0: f32[A:2]) {\n  %1 = call @f x 100000000 carry 1 share 0(%0) : f32[A:2]\n  return %1\n}\n";
    write("long.ir", long);
    write("mesh.ir", "module \"m\"\nmesh [dp:4294967296, tp:4294967296]\n");
    let lines = [
        "opt empty.ir --passes shard",
        "opt made.ir --passes simplify",
        "opt long.ir --passes inline",
        "opt mesh.ir --passes shard",
    ];
    insta::assert_snapshot!(refused(folder.path(), &lines));
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
