//! What a target must answer: kernels, workspace, alignment, code.
