//! What can go wrong between a kernel and its machine code.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("unknown CPU `{name}`: use native, x86-64-v3, x86-64-v4 or x86-64-v4-bf16")]
    UnknownCpu { name: String },
    #[error("this machine's CPU lacks {missing}, which every CPU target needs (x86-64-v3)")]
    WeakHost { missing: String },
    #[error("module `{module}`: MLIR refuses the emitted text: {message}")]
    Mlir { module: String, message: String },
    #[error("module `{module}`: {stage} failed: {message}")]
    Llvm { module: String, stage: &'static str, message: String },
    #[error("cannot run the linker {}: {source}", linker.display())]
    LinkerMissing { linker: PathBuf, source: std::io::Error },
    #[error("the linker failed: {message}")]
    Link { message: String },
    #[error("cannot write the linker's input: {0}")]
    Scratch(#[source] std::io::Error),
    #[error("cannot keep a compiled kernel in the cache: {0}")]
    Cache(#[source] std::io::Error),
    #[error("a code generation thread died")]
    Thread,
}
