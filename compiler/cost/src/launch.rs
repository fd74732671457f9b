//! The time of a kernel: a roofline of products, work on single elements and memory traffic, at the rates that kernels
//! reach, and a fixed time for each launch.

use plan::{Access, Body, Class, Kernel, Launch, Plan};
use types::{DType, TensorType};

use crate::Machine;

/// Seconds of one launch on one rank.
pub fn seconds_of_launch(machine: &Machine, plan: &Plan, class: &Class, body: &Body, launch: &Launch) -> f64 {
    let Some(kernel) = plan.kernels.get(launch.kernel.index()) else { return 0.0 };
    seconds_of_kernel(machine, plan.header.world(), kernel, kernel_types(plan, class, body, launch))
}

/// Seconds of one launch of a kernel on one of `world` ranks.
pub fn seconds_of_kernel(machine: &Machine, world: usize, kernel: &Kernel, types: KernelTypes) -> f64 {
    seconds_of_work(machine, world, Work::of(kernel), types)
}

/// The same of a kernel that does this.
pub fn seconds_of_work(machine: &Machine, world: usize, work: Work, types: KernelTypes) -> f64 {
    machine.device.launch_us * 1e-6 + work.seconds(machine, types) / machine.share(world)
}

/// What a kernel does, in the quantities that take time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// FLOP of products of matrices.
    pub products: u64,
    /// Operations on single elements.
    pub elementwise: u64,
    pub bytes: u64,
}

impl Work {
    /// Of one launch.
    pub fn of(kernel: &Kernel) -> Self {
        Self { products: kernel.products, elementwise: kernel.elementwise, bytes: kernel.bytes }
    }

    /// Seconds on the whole device.
    pub fn seconds(self, machine: &Machine, types: KernelTypes) -> f64 {
        let products = self.products as f64 / machine.products(types.products, self.products as f64);
        let vector = self.elementwise as f64 / machine.vector(types.moved);
        let memory = self.bytes as f64 / machine.bandwidth(types.moved);
        let computed = if machine.device.vector_beside_matmul { products.max(vector) } else { products + vector };
        computed.max(memory)
    }
}

/// The types that decide a kernel's rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelTypes {
    /// Of its products: the narrowest of the floating-point tensors that it reads.
    pub products: DType,
    /// The narrowest of those that it reads or writes.
    pub moved: DType,
}

impl KernelTypes {
    /// Of a kernel with these arguments.
    pub fn of<'a>(args: impl Iterator<Item = (Access, &'a TensorType)> + Clone) -> Self {
        let narrowest = |read: bool| {
            let types = args.clone().filter(|(access, _)| !read || access.reads()).map(|(_, ty)| ty.dtype);
            types.filter(|t| t.is_float()).min_by_key(|t| t.bytes()).unwrap_or(DType::F32)
        };
        Self { products: narrowest(true), moved: narrowest(false) }
    }
}

pub fn kernel_types(plan: &Plan, class: &Class, body: &Body, launch: &Launch) -> KernelTypes {
    let args = launch.args.iter().zip(plan.accesses(launch.kernel));
    KernelTypes::of(
        args.filter_map(|(slice, access)| Some((*access, body.buffer(class, slice.buffer)?.ty.as_deref()?))),
    )
}
