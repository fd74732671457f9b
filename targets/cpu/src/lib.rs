//! The CPU target: fused kernels through MLIR and LLVM to one shared object.
