//! Lets tests of the CPU target find LLVM and MLIR at run time.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if let Ok(path) = std::env::var("DEP_MMC_CPU_RPATH") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{path}");
    }
}
