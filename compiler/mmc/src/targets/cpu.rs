//! The CPU: kernels through LLVM, linked by lld.

use std::path::{Path, PathBuf};

use diag::{Diagnostic, Diagnostics};
use target::Target;
use target_cpu::CpuTarget;
use target_cpu::cpu::Cpu;

use super::Family;
use crate::args::Options;
use crate::cache::Folder;

pub const FAMILY: Family = Family { names: || vec!["cpu"], make, has_kernels: true, narrow: None };

fn make(options: &Options, cache: Option<&Path>) -> Result<Box<dyn Target>, Diagnostics> {
    let cpu = Cpu::parse(options.cpu.as_deref().unwrap_or("native")).map_err(|e| Diagnostic::error(e.to_string()))?;
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut target = CpuTarget::new(cpu, linker()?, threads);
    if let Some(path) = cache {
        target.cache = Some(Box::new(Folder::open(path)?));
    }
    Ok(Box::new(target))
}

/// The linker that turns object files into the plan's shared object: `MMC_LLD`, or LLVM's own.
fn linker() -> Result<PathBuf, Diagnostics> {
    if let Some(path) = std::env::var_os("MMC_LLD") {
        return Ok(path.into());
    }
    let on_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|p| std::env::split_paths(&p).collect::<Vec<_>>())
        .flat_map(|folder| [folder.join("ld.lld-22"), folder.join("ld.lld")]);
    let known = [PathBuf::from("/usr/lib/llvm-22/bin/ld.lld")];
    known.into_iter().chain(on_path).find(|p| p.is_file()).ok_or_else(|| {
        Diagnostic::error("no linker: ld.lld of LLVM 22 is not installed")
            .help("run scripts/setup-llvm.sh, or set MMC_LLD to an ld.lld")
            .into()
    })
}
