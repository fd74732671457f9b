//! The sample plan with a real object, compiled by rustc when a test asks for it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::Path;
use std::process::Command;

use plan::Plan;

/// The shared object that holds the sample plan's kernels, or those of a rank of the grid.
pub fn object(grid: bool) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("kernels.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../device/tests/line/kernels.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.args(["--crate-type", "cdylib", "--edition", "2024", "-O", "-Cpanic=abort", "-Cstrip=symbols"]);
    if grid {
        command.args(["--cfg", "grid"]);
    }
    let status = command.arg("-o").arg(&out).arg(source).status().expect("rustc runs");
    assert!(status.success(), "the kernels compile");
    std::fs::read(out).expect("the object is there")
}

pub fn with_object(mut plan: Plan) -> Plan {
    plan.object = object(false);
    plan
}
