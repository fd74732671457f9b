//! Devices: where kernels come from and run. The CPU's are the plan's shared object, Ascend's are models that CANN compiled.

pub mod ascend;
mod cpu;
mod features;
mod image;

pub use cpu::{CpuKernels, LoadError};
pub use features::missing_features;
pub use image::image;
