//! The time of a kernel: a roofline of products and memory traffic, with the shares of both that kernels reach, and a
//! fixed time for each launch.

use plan::{Body, Class, Launch, Plan};
use types::DType;

use crate::Machine;

/// Seconds of one launch on one rank.
pub fn seconds_of_launch(machine: &Machine, plan: &Plan, class: &Class, body: &Body, launch: &Launch) -> f64 {
    let Some(kernel) = plan.kernels.get(launch.kernel.index()) else { return 0.0 };
    let device = &machine.device;
    let share = machine.share(plan.header.world());
    let types = kernel_types(plan, class, body, launch);
    let rate = machine.peak(types.products) * device.matmul_efficiency * share;
    let bandwidth = machine.bandwidth(types.moved) * share;
    let work = (kernel.flops as f64 / rate).max(kernel.bytes as f64 / bandwidth);
    device.launch_us * 1e-6 + work
}

/// The types that decide a kernel's rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelTypes {
    /// Of its products: the narrowest of the floating-point tensors that it reads.
    pub products: DType,
    /// The narrowest of those that it reads or writes.
    pub moved: DType,
}

pub fn kernel_types(plan: &Plan, class: &Class, body: &Body, launch: &Launch) -> KernelTypes {
    let narrowest = |read: bool| {
        let args = launch.args.iter().zip(plan.accesses(launch.kernel)).filter(|(_, access)| !read || access.reads());
        let types = args.filter_map(|(slice, _)| Some(body.buffer(class, slice.buffer)?.ty.as_ref()?.dtype));
        types.filter(|t| t.is_float()).min_by_key(|t| t.bytes()).unwrap_or(DType::F32)
    };
    KernelTypes { products: narrowest(true), moved: narrowest(false) }
}
