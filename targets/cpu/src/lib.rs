//! The CPU target: fused kernels through MLIR and LLVM to one shared object.

pub mod attention;
pub mod cache;
pub mod codegen;
pub mod cpu;
pub mod emit;
pub mod error;
pub mod experts;
pub mod group;
pub mod link;
pub mod lower;
pub mod math;
pub mod matmul;
pub mod nest;
mod target;

pub use cpu::Cpu;
pub use target::CpuTarget;
