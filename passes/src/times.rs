//! Times of instructions before there is a plan, as the figures of a machine predict them.

use cost::{Exchange, Groups, KernelTypes, Machine};
use plan::Op;
use program::{Instruction, RankProgram, is_message};
use smallvec::SmallVec;
use types::Mesh;

/// A collective that takes this many times what an empty one does gains little from company.
const FULL: f64 = 20.0;

#[derive(Clone)]
pub struct Times<'a> {
    machine: &'a Machine,
    mesh: &'a Mesh,
    groups: Groups<'a>,
}

impl<'a> Times<'a> {
    pub fn new(machine: &'a Machine, mesh: &'a Mesh) -> Self {
        Self { machine, mesh, groups: Groups::new(machine, mesh) }
    }

    /// By instruction: the seconds that it takes as a kernel; none of what is no launch.
    pub fn kernels(&self, program: &RankProgram) -> Vec<f64> {
        program.instructions.iter().map(|i| self.kernel(program, i)).collect()
    }

    fn kernel(&self, program: &RankProgram, instruction: &Instruction) -> f64 {
        let Op::Launch(launch) = &instruction.op else { return 0.0 };
        let Some(kernel) = program.kernels.get(launch.kernel.index()) else { return 0.0 };
        let args = launch.args.iter().zip(&kernel.args);
        let args =
            args.filter_map(|(s, access)| Some((*access, program.buffers.get(s.buffer.index())?.ty.as_deref()?)));
        cost::seconds_of_kernel(self.machine, self.mesh.world(), kernel, KernelTypes::of(args))
    }

    /// Seconds of a collective, on rank 0 as on any other.
    pub fn exchange<'e>(&mut self, exchange: impl Into<Exchange<'e>>) -> f64 {
        self.groups.seconds(exchange, 0)
    }

    /// The same of an instruction, if it is one in which all ranks of a group meet.
    pub fn exchange_of(&mut self, instruction: &Instruction) -> Option<f64> {
        match &instruction.op {
            Op::Collect(collect) if !is_message(&instruction.op) => Some(self.exchange(&**collect)),
            _ => None,
        }
    }

    /// What a rank moves to the host or back.
    pub fn host_bytes_per_second(&self) -> f64 {
        self.machine.device.host_gb_per_s * 1e9
    }

    /// Whether a collective is so large that it need not wait for others to travel with it.
    pub fn is_full<'e>(&mut self, exchange: impl Into<Exchange<'e>>) -> bool {
        let exchange = exchange.into();
        let empty = Exchange { from: SmallVec::new(), to: SmallVec::new(), ..exchange.clone() };
        self.exchange(exchange) >= FULL * self.exchange(empty)
    }
}
