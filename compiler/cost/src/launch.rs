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
    let rate = machine.peak(narrowest(plan, class, body, launch)) * device.matmul_efficiency * share;
    let bandwidth = device.memory_gb_per_s * 1e9 * device.memory_efficiency * share;
    let work = (kernel.flops as f64 / rate).max(kernel.bytes as f64 / bandwidth);
    device.launch_us * 1e-6 + work
}

/// The type that the kernel's products are of: the narrowest of the floating-point tensors it reads.
pub fn narrowest(plan: &Plan, class: &Class, body: &Body, launch: &Launch) -> DType {
    let read = launch.args.iter().zip(plan.accesses(launch.kernel)).filter(|(_, access)| access.reads());
    let types = read.filter_map(|(slice, _)| Some(body.buffer(class, slice.buffer)?.ty.as_ref()?.dtype));
    types.filter(|t| t.is_float()).min_by_key(|t| t.bytes()).unwrap_or(DType::F32)
}
