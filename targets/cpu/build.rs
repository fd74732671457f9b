//! Makes one shared LLVM serve melior and inkwell: writes the `libMLIR-C.so` that Debian does not ship.
//!
//! mlir-sys asks the linker for `-lMLIR-C`. Debian has the C API only as archives, so this script writes a linker script of
//! that name over them; search paths reach every binary that depends on this crate. The rpath cannot travel that way: a
//! dependent with binaries prints `cargo:rustc-link-arg=-Wl,-rpath,$DEP_MMC_CPU_RPATH` in its own build script.

use std::path::PathBuf;
use std::{env, fs, io};

/// Archives that need libraries outside libMLIR and libLLVM.
const LEFT_OUT: [&str; 2] = ["libMLIRCAPIExecutionEngine.a", "libMLIRCAPIExportSMTLIB.a"];

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=MLIR_SYS_220_PREFIX");
    let prefix = env::var_os("MLIR_SYS_220_PREFIX").unwrap_or_else(|| "/usr/lib/llvm-22".into());
    let lib = PathBuf::from(prefix).join("lib");

    let mut archives = Vec::new();
    for entry in fs::read_dir(&lib)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("libMLIRCAPI") && name.ends_with(".a") && !LEFT_OUT.contains(&name.as_str()) {
            archives.push(lib.join(name));
        }
    }
    archives.sort();
    if archives.is_empty() {
        return Err(io::Error::other(format!("no MLIR C API in {}: run scripts/setup-llvm.sh", lib.display())));
    }
    archives.push(lib.join("libMLIR.so"));
    archives.push(lib.join("libLLVM.so"));
    let files: Vec<String> = archives.iter().map(|path| path.display().to_string()).collect();

    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?);
    fs::write(out.join("libMLIR-C.so"), format!("GROUP ( {} )\n", files.join(" ")))?;
    println!("cargo:rustc-link-search=native={}", out.display());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    println!("cargo:rpath={}", lib.display());
    Ok(())
}
