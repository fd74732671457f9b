//! The targets by the names that `--target` takes.

use std::path::Path;

use diag::{Diagnostic, Diagnostics};
use target::{NoTarget, Target};

use crate::args::{Options, WorkType};

/// What `--target` takes in this build.
fn names() -> String {
    let names = ["none"].into_iter();
    #[cfg(feature = "cpu")]
    let names = names.chain(["cpu"]);
    #[cfg(feature = "ascend")]
    let names = names.chain(target_ascend::SOCS.iter().map(|soc| soc.name));
    names.collect::<Vec<_>>().join(", ")
}

/// Whether the options name an Ascend.
pub fn is_ascend(options: &Options) -> bool {
    #[cfg(feature = "ascend")]
    let known = target_ascend::soc::soc(&options.target).is_some();
    #[cfg(not(feature = "ascend"))]
    let known = false;
    known
}

/// The working type: what is asked for, or the target's own.
pub fn work_type(options: &Options) -> WorkType {
    options.dtype.unwrap_or(if is_ascend(options) { WorkType::Bf16 } else { WorkType::F32 })
}

/// The target that the options name; `cache` is where it keeps compiled kernels.
pub fn target(options: &Options, cache: Option<&Path>) -> Result<Box<dyn Target>, Diagnostics> {
    if cache.is_some() && options.target != "cpu" {
        return Err(Diagnostic::error(format!("--cache has no use for the target `{}`", options.target))
            .note("it keeps compiled kernels, and only the target `cpu` compiles any")
            .help("leave --cache out")
            .into());
    }
    if let Some(cpu) = options.cpu.as_ref().filter(|_| options.target != "cpu") {
        return Err(Diagnostic::error(format!("--cpu {cpu} has no use for the target `{}`", options.target))
            .note("it names the processor that the target `cpu` compiles kernels for")
            .help("leave --cpu out, or compile with --target cpu")
            .into());
    }
    #[cfg(feature = "ascend")]
    if let Some(soc) = target_ascend::soc::soc(&options.target) {
        return Ok(Box::new(target_ascend::AscendTarget { soc }));
    }
    match options.target.as_str() {
        "none" => Ok(Box::new(NoTarget)),
        #[cfg(feature = "cpu")]
        "cpu" => cpu(options, cache),
        other => Err(Diagnostic::error(format!("there is no target `{other}`"))
            .help(format!("the targets of this build are {}", names()))
            .into()),
    }
}

#[cfg(feature = "cpu")]
fn cpu(options: &Options, cache: Option<&Path>) -> Result<Box<dyn Target>, Diagnostics> {
    let cpu = target_cpu::cpu::Cpu::parse(options.cpu.as_deref().unwrap_or("native"))
        .map_err(|e| Diagnostic::error(e.to_string()))?;
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut target = target_cpu::CpuTarget::new(cpu, linker()?, threads);
    if let Some(path) = cache {
        target.cache = Some(Box::new(crate::cache::Folder::open(path)?));
    }
    Ok(Box::new(target))
}

/// The linker that turns object files into the plan's shared object: `MMC_LLD`, or LLVM's own.
#[cfg(feature = "cpu")]
fn linker() -> Result<std::path::PathBuf, Diagnostics> {
    use std::path::PathBuf;
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
