//! Times of instructions before there is a plan, as the figures of a machine predict them.

use cost::{Groups, KernelTypes, Machine};
use plan::{Buffer, Collect, Instruction, Kernel, Op};
use types::Mesh;

use super::lanes::is_message;
use super::unroll::Unrolled;
use super::update::accesses;

/// A collective that takes this many times what an empty one does gains little from company.
const FULL: f64 = 20.0;

#[derive(Clone)]
pub struct Times<'a> {
    machine: &'a Machine,
    mesh: &'a Mesh,
    kernels: &'a [Kernel],
    groups: Groups<'a>,
}

impl<'a> Times<'a> {
    pub fn new(machine: &'a Machine, mesh: &'a Mesh, kernels: &'a [Kernel]) -> Self {
        Self { machine, mesh, kernels, groups: Groups::new(machine, mesh) }
    }

    fn kernel<'b>(&self, instruction: &Instruction, buffer: &impl Fn(usize) -> Option<&'b Buffer>) -> f64 {
        let Op::Launch(launch) = &instruction.op else { return 0.0 };
        let Some(kernel) = self.kernels.get(launch.kernel.index()) else { return 0.0 };
        let args = launch.args.iter().zip(accesses(self.kernels, launch.kernel));
        let args = args.filter_map(|(s, access)| Some((*access, buffer(s.buffer.index())?.ty.as_deref()?)));
        cost::seconds_of_kernel(self.machine, self.mesh.world(), kernel, KernelTypes::of(args))
    }

    /// By instruction: the seconds that it takes as a kernel.
    pub fn seconds(&self, unrolled: &Unrolled, persistent: &[Buffer]) -> Vec<f64> {
        let buffer = |id: usize| match id.checked_sub(persistent.len()) {
            None => persistent.get(id),
            Some(own) => unrolled.buffers.get(own),
        };
        unrolled.instructions.iter().map(|i| self.kernel(i, &buffer)).collect()
    }

    /// Seconds of a collective, on rank 0 as on any other.
    pub fn exchange(&mut self, collect: &Collect) -> f64 {
        self.groups.seconds(collect, 0)
    }

    /// The same of an instruction, if it is one in which all ranks of a group meet.
    pub fn exchange_of(&mut self, instruction: &Instruction) -> Option<f64> {
        match &instruction.op {
            Op::Collect(collect) if !is_message(&instruction.op) => Some(self.exchange(collect)),
            _ => None,
        }
    }

    /// What a rank moves to the host or back.
    pub fn host_bytes_per_second(&self) -> f64 {
        self.machine.device.host_gb_per_s * 1e9
    }

    /// Whether a collective is so large that it need not wait for others to travel with it.
    pub fn is_full(&mut self, collect: &Collect) -> bool {
        let empty = Collect { from: vec![], to: vec![], why: "".into(), ..collect.clone() };
        self.exchange(collect) >= FULL * self.exchange(&empty)
    }
}
