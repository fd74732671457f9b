//! From the graph of kernels to the plan: which passes over programs run, in which order and why.

use cost::Machine;
use diag::{Diagnostic, Diagnostics, Sources};
use ir::Module;
use plan::{Header, LaneKind, Plan};
use program::RankModule;
use target::Target;

use crate::hide_comm::Gradients;
use crate::memory_search;
use crate::pipeline::Pipeline;
use crate::ranks::{self, RankPass};
use crate::remat::{Offload, Remat};
use crate::residencies::Residencies;
use crate::stages::Stages;
use crate::{Context, ProgramPass, unroll};

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

impl MemoryPolicy {
    /// Whether values may be recomputed or offloaded.
    pub fn asks(&self) -> bool {
        self.remat(0).asks()
    }

    /// Whether every rank has room for every program.
    fn fits(&self, plan: &Plan) -> bool {
        let Some(budget) = self.budget else { return true };
        plan.programs.iter().flat_map(|p| &p.bodies).all(|body| {
            let communicators = body.lanes.iter().filter(|lane| matches!(lane, LaneKind::Comm(_))).count() as u64;
            body.arena_bytes.saturating_add(budget.communicator.saturating_mul(communicators)) <= budget.bytes
        })
    }

    /// Whether some rank has no room for it in any order of instructions.
    fn is_hopeless(&self, plan: &Plan) -> bool {
        let Some(budget) = self.budget else { return false };
        plan.scopes().any(|scope| plan::least(scope).bytes() > budget.bytes)
    }

    pub fn remat(&self, memory: u64) -> Remat {
        Remat { recompute: self.recompute, activations: self.activations, optimizer: self.optimizer, memory }
    }
}

/// The passes over each rank's program after `unroll`, `stages` and `remat`.
///
/// - `prefetch` comes first, so that what follows sees the gathers of each block in that block.
/// - `in-place` needs the program in its old order, where a value's last reader is known.
/// - `hide-comm` orders, and `bucket` joins what it has put side by side.
/// - `offload-optimizer` copies to and from the host around each user, so it needs the final order.
/// - `lanes` adds waits, `liveness` follows from them, and `allocate` from the live ranges.
pub fn closing(policy: &MemoryPolicy) -> String {
    let gradients = match policy.gradients {
        Gradients::Streamed => "streamed",
        Gradients::Resident => "resident",
    };
    let order = format!("hide-comm{{gradients={gradients},eager={}}} | bucket", policy.eager);
    format!("prefetch | in-place | {order} | offload-optimizer | lanes | liveness | allocate")
}

/// Everything of a plan but its code: `object` is left empty. Instructions are ordered by what they take on `machine`.
///
/// A plan that does not fit the budget is made once more, eagerly, unless the policy has decided about that.
pub fn lower(
    module: &Module,
    sources: &Sources,
    target: &dyn Target,
    header: Header,
    machine: &Machine,
    stages: Option<&Stages>,
    policy: &MemoryPolicy,
) -> Result<Plan, Diagnostics> {
    let make = |policy: &MemoryPolicy| {
        let mut module = span("unroll", || unroll::unroll(module, sources, target))?;
        if let Some(stages) = stages {
            let mut cx = Context { machine: Some(machine), ..Context::default() };
            span("stages", || stages.run(&mut module, &mut cx))?;
        }
        if policy.sleeping_parameters {
            span("residencies", || Residencies {}.run(&mut module, &mut Context::default()))?;
        }
        close(&mut module, machine, policy)?;
        let plan = program::plan(module, header.clone());
        // Counts of a kernel saturate; sums over kernels do not.
        if let Some(kernel) = plan.kernels.iter().find(|k| k.flops == u64::MAX) {
            let what = format!("kernel `{}` takes more than 2^64 FLOP on one rank", kernel.symbol);
            return Err(Diagnostic::error(what).help("make the batch or other dims smaller").into());
        }
        Ok::<Plan, Diagnostics>(plan)
    };
    let plan = make(policy)?;
    if policy.eager || policy.asks() || policy.fits(&plan) || policy.is_hopeless(&plan) {
        return Ok(plan);
    }
    let eager = MemoryPolicy { eager: true, ..policy.clone() };
    let other = make(&eager)?;
    Ok(if policy.fits(&other) { other } else { plan })
}

fn span<T>(name: &'static str, work: impl FnOnce() -> T) -> T {
    let _span = tracing::info_span!("pass", name).entered();
    work()
}

/// Remat and the closing passes, each rank by itself: what one of them decides depends on no other.
fn close(module: &mut RankModule, machine: &Machine, policy: &MemoryPolicy) -> Result<(), Diagnostics> {
    let steps = Pipeline::parse(&closing(policy)).map_err(|e| Diagnostic::internal(e.to_string()))?;
    let steps: Vec<(&'static str, &dyn RankPass)> = steps.rank_passes().collect();
    ranks::each(module, machine, |program, cx| {
        if policy.asks() {
            *program = memory_search::fastest_that_fits(program, policy, &steps, cx);
            return;
        }
        for (name, pass) in &steps {
            span(name, || pass.run(program, cx));
        }
    });
    Ok(())
}
