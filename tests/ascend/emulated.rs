//! Ascend plans run by `mmrun` on emulators of CANN, against the same models on the CPU; and what it says when CANN fails.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use tests::binaries::{command, model, run};

use crate::{Exported, export, mmc};

/// The folder of the emulators, which are built here once: nothing depends on them.
fn emulators() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let test = std::env::current_exe().expect("a test knows where it is");
        let folder = test.parent().and_then(Path::parent).expect("target/<profile>/deps").to_owned();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--target-dir"]).arg(folder.parent().expect("target"));
        if folder.ends_with("release") {
            build.arg("--release");
        }
        run(build.args(["-p", "emulator-ascendcl", "-p", "emulator-hccl", "-p", "emulator-atc"])).expect("they build");
        folder
    })
}

/// Compiles the exported segments with the emulated `atc`, and packs them.
fn packed(exported: &Exported) -> PathBuf {
    let out = exported.folder.path().join("out");
    let path = std::env::join_paths(
        std::iter::once(emulators().to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    run(Command::new("sh").arg(out.join("compile.sh")).env("PATH", path.expect("a path"))).expect("compiles");
    let packed = exported.folder.path().join("packed.bin");
    run(mmc("pack", &exported.plan).arg("--om").arg(out.join("om")).arg("-o").arg(&packed)).expect("packs");
    packed
}

fn mmrun(plan: &Path) -> Command {
    let mut c = command("mmrun");
    c.arg(plan).env("LD_LIBRARY_PATH", emulators());
    c
}

/// Losses of five steps.
fn losses(run_plan: &mut Command, folder: &Path) -> Vec<f32> {
    let out = folder.join("out.safetensors");
    run(run_plan.args(["--steps", "5", "--outputs"]).arg(&out)).expect("trains");
    let bytes = std::fs::read(&out).expect("outputs");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let loss = tensors.tensor("loss").expect("losses");
    loss.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// The same words give the same losses on the emulators and on the CPU.
fn check(words: &str, tolerance: f32) {
    let exported = export(words);
    let folder = exported.folder.path();
    let manifest = String::from_utf8(exported.read("manifest.json")).expect("text");
    assert_eq!(manifest.contains("FlashAttentionScoreGrad"), words.contains("bf16"), "{words}");
    let got = losses(&mut mmrun(&packed(&exported)), folder);
    let cpu = folder.join("cpu.bin");
    let mut words_of = words.split_whitespace();
    let mut compile = mmc("compile", &model(words_of.next().expect("a model")));
    run(compile.args(words_of).arg("-o").arg(&cpu)).expect("compiles");
    let want = losses(command("mmrun").arg(&cpu), folder);
    assert_eq!((got.len(), want.len()), (5, 5));
    assert!(want[0] != want[4], "it trains: {want:?}");
    for (got, want) in got.iter().zip(&want) {
        assert!((got - want).abs() <= tolerance * want.abs(), "{words}: {got} on the emulators, {want} on the CPU");
    }
}

#[test]
fn wan_tiny_trains() {
    check("wan2.2.mm --preset tiny --dtype f32", 1e-4);
    check("wan2.2.mm --preset tiny --fsdp 2 --dtype f32", 1e-4);
    check("wan2.2.mm --preset tiny --tp 2 --pp 2 --dtype f32", 1e-4);
    check("wan2.2.mm --preset tiny --tp 2 --overlap 2 --dtype f32", 1e-4);
}

#[test]
fn qwen3_tiny_trains() {
    check("qwen3.mm --preset tiny --dtype f32", 1e-4);
    check("qwen3.mm --preset tiny --fsdp 2 --dtype f32", 1e-4);
    check("qwen3.mm --preset tiny --tp 2 --pp 2 --dtype f32", 1e-4);
}

/// Attention as FlashAttentionScore.
#[test]
fn wan_tiny_trains_in_bf16() {
    check("wan2.2.mm --preset tiny --dtype bf16", 1e-2);
    check("wan2.2.mm --preset tiny --dtype bf16 --fsdp 2", 1e-2);
    check("wan2.2.mm --preset tiny --dtype bf16 --tp 2 --pp 2", 1e-2);
}

#[test]
fn qwen3_tiny_trains_in_bf16() {
    check("qwen3.mm --preset tiny --dtype bf16", 1e-2);
    check("qwen3.mm --preset tiny --dtype bf16 --fsdp 2", 1e-2);
    check("qwen3.mm --preset tiny --dtype bf16 --tp 2 --pp 2", 1e-2);
}

/// Micro-batches on their way at the same time, other schedules, and a ring of attention.
#[test]
fn other_ways_to_cut_train() {
    check("wan2.2.mm --preset tiny --pp 2 --microbatches 4 --schedule zb-h1 --dtype f32", 1e-4);
    check("qwen3.mm --preset tiny --fsdp 2 --pp 2 --microbatches 2 --schedule gpipe --dtype f32", 1e-4);
    check("wan2.2.mm --preset tiny --dtype bf16 --cp 2 --ulysses 1", 1e-2);
}

/// Parameters stay as the initialisers made them.
#[test]
fn steps_that_are_not_finite_change_nothing() {
    for words in ["wan2.2.mm --preset tiny --tp 2 --pp 2 --batch 1", "wan2.2.mm --preset tiny --optim kind=sgd,lr=0.1"]
    {
        let exported = export(words);
        let folder = exported.folder.path();
        let noise = [f32::NAN; 4 * 2 * 8 * 8].map(f32::to_le_bytes);
        let view = TensorView::new(Dtype::F32, vec![1, 4, 2, 8, 8], noise.as_flattened()).expect("a view");
        let bytes = safetensors::serialize([("noise", view)], None).expect("bytes");
        std::fs::write(folder.join("in.safetensors"), bytes).expect("written");
        let cpu = folder.join("cpu.bin");
        run(mmc("compile", &model("wan2.2.mm")).args(["--preset", "tiny", "-o"]).arg(&cpu)).expect("compiles");
        let params = |c: &mut Command| {
            let out = folder.join("out.safetensors");
            c.args(["--steps", "2", "--on-nan", "skip", "--emit", "params", "--inputs"])
                .arg(folder.join("in.safetensors"));
            let told = run(c.arg("--outputs").arg(&out)).expect("runs").stderr;
            assert!(String::from_utf8_lossy(&told).contains("2 of 2 steps updated nothing"), "{words}");
            let bytes = std::fs::read(&out).expect("outputs");
            let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
            let params = tensors.tensors().into_iter().filter(|(name, _)| name.starts_with("param/"));
            params.map(|(name, view)| (name, view.data().to_vec())).collect::<BTreeMap<_, _>>()
        };
        let (got, expected) = (params(&mut mmrun(&packed(&exported))), params(command("mmrun").arg(&cpu)));
        let apart: Vec<_> = expected.iter().filter(|(name, value)| got.get(*name) != Some(*value)).collect();
        assert!(got.len() == expected.len() && apart.is_empty(), "{words}: {:?}", apart.first().map(|(name, _)| name));
    }
}

fn refused(c: &mut Command) -> String {
    run(c).map(|_| ()).expect_err("it cannot run")
}

#[test]
fn failures_say_what_and_where() {
    let exported = export("wan2.2.mm --preset tiny --tp 2");
    let plan = packed(&exported);

    let said = refused(&mut mmrun(&exported.plan));
    assert!(said.contains("CANN has not compiled the plan's"), "{said}");
    assert!(said.contains("mmc pack"), "{said}");

    let said = refused(mmrun(&plan).env_remove("LD_LIBRARY_PATH"));
    assert!(said.contains("CANN's libascendcl.so is not there"), "{said}");
    assert!(said.contains("LD_LIBRARY_PATH is not set"), "{said}");
    let said = refused(mmrun(&plan).env("LD_LIBRARY_PATH", "/nowhere:/neither"));
    assert!(said.contains("LD_LIBRARY_PATH is /nowhere:/neither"), "{said}");

    // A library of that name with other symbols.
    let odd = tempfile::tempdir().expect("a folder");
    let link = |from: &str, to: &str| std::os::unix::fs::symlink(emulators().join(from), odd.path().join(to));
    link("libascendcl.so", "libascendcl.so").and_then(|()| link("libascendcl.so", "libhccl.so")).expect("links");
    let said = refused(mmrun(&plan).env("LD_LIBRARY_PATH", odd.path()));
    assert!(said.contains("lack HcclGetRootInfo, HcclCommInitRootInfoConfig"), "{said}");

    let said = refused(mmrun(&plan).env("EMULATOR_FAIL", "aclmdlExecuteAsync:7"));
    let failed = "aclmdlExecuteAsync failed with code 507015 (ACL_ERROR_RT_AICORE_EXCEPTION: an operator failed on an AI \
                  core): EZ9999";
    assert!(said.contains(failed), "{said}");
    assert!(said.contains("wan2.2.mm:"), "{said}");

    let said = refused(mmrun(&plan).env("EMULATOR_FAIL", "model:7"));
    assert!(said.contains("on the stream of lane compute") && said.contains("code 507015"), "{said}");
}

#[test]
fn a_stalled_collective_is_named() {
    let exported = export("wan2.2.mm --preset tiny --tp 2");
    let plan = packed(&exported);
    let said = refused(mmrun(&plan).args(["--timeout", "2", "--fault", "rank=1,at=20,kind=stall"]));
    assert!(said.contains("rank 0: #"), "{said}");
    assert!(said.contains("the device has waited 2 s for other ranks in it"), "{said}");
    assert!(said.contains("wan2.2.mm:"), "{said}");
}
