//! Devices: where kernels come from and run. The CPU's are the plan's shared object, Ascend's are models that CANN compiled.

pub mod ascend;
mod cpu;
mod features;
mod mapped;

pub use cpu::{CpuKernels, LoadError};
pub use features::missing_features;
pub use mapped::Mapped;
