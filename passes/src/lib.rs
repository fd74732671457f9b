//! Graph-to-graph passes, one file each, and the pipeline that runs them.

mod allocate;
mod group;
mod schedule;

pub use allocate::allocate;
pub use group::group;
pub use schedule::{Gradients, kernels, schedule};
