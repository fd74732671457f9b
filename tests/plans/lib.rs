//! Plans against the interpreter: this package is its tests. It stands apart from `tests` because it links LLVM.
