//! Real models: what the compiler made for a mesh gives the same bytes in processes as in threads.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::hosts::Hosts;
use crate::{good, mpirun};

#[test]
fn meshes_of_real_models_give_what_threads_give() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    let mmrun = Path::new(env!("CARGO_BIN_EXE_mmrun"));
    let mmc = mmrun.with_file_name("mmc");
    assert!(mmc.exists(), "the compiler stands beside the runtime: cargo build -p mmc");
    let hosts = Hosts::new(2);
    let meshes = [
        ("wan2.2.mm", "--tp 2 --fsdp 2", 4, false),
        ("wan2.2.mm", "--cp 2 --dp 2 --zero 1", 4, true),
        ("qwen3.mm", "--tp 2 --cp 2 --ulysses 1", 4, false),
        ("qwen3.mm", "--pp 2 --tp 2 --batch 4 --microbatches 4 --schedule zb-h1", 4, true),
        ("wan2.2.mm", "--pp 2 --fsdp 2 --batch 4 --microbatches 2", 4, false),
    ];
    for (model, mesh, ranks, apart) in meshes {
        let folder = tempfile::tempdir().expect("a folder");
        let run = |program: &Path, args: &str| {
            let output =
                Command::new(program).args(args.split_whitespace()).current_dir(&folder).output().expect("runs");
            assert!(output.status.success(), "{model} {mesh}: {}", String::from_utf8_lossy(&output.stderr));
        };
        run(&mmc, &format!("compile {} --preset tiny {mesh} -o plan.bin", models.join(model).display()));
        run(mmrun, "plan.bin --steps 2 --outputs threads.st --emit grads,params");
        let args = "plan.bin --steps 2 --outputs processes.st --emit grads,params";
        match apart {
            true => good(&mut hosts.mpirun(folder.path(), ranks, args)),
            false => good(&mut mpirun(folder.path(), ranks, args)),
        };
        let read = |name| fs::read(folder.path().join(name)).expect(name);
        assert_eq!(read("threads.st"), read("processes.st"), "{model} {mesh}");
    }
}
