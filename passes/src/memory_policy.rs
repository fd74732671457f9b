//! What a plan may do for less memory, and the memory that there is.

use plan::{Body, LaneKind, Plan};

use crate::hide_comm::Gradients;
use crate::options::{OffloadChoice, Options, RecomputeChoice};
use crate::remat::{Offload, Remat};

/// What a plan may do for less memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryPolicy {
    pub gradients: Gradients,
    /// Values may be computed again.
    pub recompute: bool,
    pub activations: Offload,
    /// Moments and master weights.
    pub optimizer: Offload,
    /// Parameters that other programs need sleep in the host's memory.
    pub sleeping_parameters: bool,
    /// None is as much as there may be.
    pub budget: Option<Budget>,
    /// Do not delay compute to hide communication: delayed work keeps its operands alive and costs memory.
    pub eager: bool,
}

/// What a device may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub bytes: u64,
    /// What each communicator takes of it.
    pub communicator: u64,
}

/// What ranks of a class need in a program, communicators included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    pub program: usize,
    pub class: usize,
    pub bytes: u64,
}

impl MemoryPolicy {
    pub fn of(options: &Options, budget: Option<Budget>) -> Self {
        let offload = |all: OffloadChoice| match options.offload {
            Some(OffloadChoice::Auto) => Offload::Auto,
            asked if asked == Some(all) => Offload::All,
            _ => Offload::None,
        };
        let policy = Self {
            gradients: options.grads,
            recompute: options.recompute == Some(RecomputeChoice::Auto),
            activations: offload(OffloadChoice::Activations),
            optimizer: offload(OffloadChoice::Optimizer),
            sleeping_parameters: options.offload == Some(OffloadChoice::Parameters),
            budget,
            eager: false,
        };
        // Where memory is asked for, none of it is spent on time.
        Self { eager: policy.asks(), ..policy }
    }

    /// Whether values may be recomputed or offloaded.
    pub fn asks(&self) -> bool {
        self.remat().asks()
    }

    pub fn remat(&self) -> Remat {
        let memory = self.budget.map_or(u64::MAX, |budget| budget.bytes);
        Remat { recompute: self.recompute, activations: self.activations, optimizer: self.optimizer, memory }
    }

    /// Whether some rank has no room for it in any order of instructions.
    pub fn is_hopeless(&self, plan: &Plan) -> bool {
        let Some(budget) = self.budget else { return false };
        plan.scopes().any(|scope| plan::least(scope).bytes() > budget.bytes)
    }

    /// The largest need, if it is more than there is.
    pub fn excess(&self, plan: &Plan) -> Option<Need> {
        let budget = self.budget?;
        budget.largest(plan).filter(|need| need.bytes > budget.bytes)
    }
}

impl Budget {
    /// What the ranks of a class need in a program.
    pub fn need(&self, body: &Body) -> u64 {
        let communicators = body.lanes.iter().filter(|lane| matches!(lane, LaneKind::Comm(_))).count() as u64;
        body.arena_bytes.saturating_add(self.communicator.saturating_mul(communicators))
    }

    /// Where the most is needed.
    pub fn largest(&self, plan: &Plan) -> Option<Need> {
        let bodies = |program: usize| plan.programs[program].bodies.iter().enumerate();
        let needs = (0..plan.programs.len()).flat_map(|program| {
            bodies(program).map(move |(class, body)| Need { program, class, bytes: self.need(body) })
        });
        needs.max_by_key(|need| need.bytes)
    }
}
