//! Devices: where kernels come from and run. Here is the CPU's: the plan's shared object, loaded and checked.

mod cpu;
mod features;
mod mapped;

pub use cpu::{CpuKernels, LoadError};
pub use features::missing_features;
pub use mapped::Mapped;
