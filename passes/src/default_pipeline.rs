//! The default pipeline: which passes make the programs of all ranks of a traced graph, in which order and why.
//!
//! It is text, as `mmc opt --passes` takes it. Every command goes by it.

use std::fmt;

use ir::{Module, ShardingHint};
use types::Name;

use crate::hide_comm::HideComm;
use crate::memory_policy::MemoryPolicy;
use crate::options::{Options, OverlapChoice, RecomputeChoice};
use crate::recompute::Mode;
use crate::registry::{Group, text};
use crate::stages::Stages;
use crate::{Microbatches, NarrowWeights, Overlap, Precision, Recompute, WorkType};

/// A pipeline in the parts between which a compilation looks whether the plan fits.
#[derive(Clone, Debug)]
pub struct DefaultPipeline {
    /// From the traced graph to the graph of one rank.
    pub graph: String,
    /// Whether `hoist-collectives` has anything to do; it is undone where the plan does not fit.
    pub hoists: bool,
    /// From the graph of one rank to the graph of its kernels.
    pub kernels: String,
    pub stages: Option<Stages>,
    pub policy: MemoryPolicy,
}

impl DefaultPipeline {
    /// For a graph of one of `microbatches` micro-batches.
    pub fn new(
        module: &Module,
        microbatches: u32,
        options: &Options,
        stages: Option<Stages>,
        policy: MemoryPolicy,
    ) -> Self {
        let trains = module.trains();
        Self {
            graph: graph(module, microbatches, options),
            hoists: stages.is_some() && trains && microbatches > 1 && stores_parts(module),
            kernels: kernels(module, options),
            stages,
            policy,
        }
    }
}

/// Whether ranks gather parameters or scatter gradients.
fn stores_parts(module: &Module) -> bool {
    let is_cut = |axes: &[Name]| axes.iter().any(|axis| module.mesh.size(axis) > 1);
    module.hints.iter().any(|(hint, _)| matches!(hint, ShardingHint::Store { axes, .. } if is_cut(axes)))
}

fn graph(module: &Module, microbatches: u32, options: &Options) -> String {
    let trains = module.trains();
    let mut passes = vec![];
    // First, since gradients, copies and sizes follow the declared types.
    passes.push(text("precision", &Precision { dtype: options.dtype.unwrap_or_default() }));
    if trains {
        // Before `autodiff`, which makes the backward of a marked block.
        if options.recompute == Some(RecomputeChoice::Full) {
            passes.push(text("recompute", &Recompute { mode: Mode::Full }));
        }
        passes.push("autodiff".into());
        if microbatches > 1 {
            // `microbatches` repeats the step as one function.
            passes.push("inline".into());
            passes.push(text("microbatches", &Microbatches { count: microbatches as usize }));
        }
        // After `microbatches`: a step has one update.
        passes.push(match options.optim.as_str() {
            "" => "optimizer".into(),
            given => format!("optimizer{{{given}}}"),
        });
    }
    // What remains are repeated calls, which the passes that follow look into.
    passes.push("inline".into());
    // On stages, all forwards of a micro-batch come before its backwards: what is fused would be kept in between.
    if trains && options.mesh.pp == 1 {
        passes.push("fuse".into());
    }
    if trains {
        // After `autodiff`, so that a gradient is still summed in its own type.
        passes.push("hoist-casts".into());
    }
    let dtype = options.dtype.unwrap_or_default();
    if !trains && dtype != WorkType::F32 {
        // Before `simplify`: a cast that stands between a weight and its readers would be a second copy of it.
        passes.push(text("narrow-weights", &NarrowWeights { dtype: dtype.into() }));
    }
    // Before sharding, which then sees fewer operators.
    passes.push("simplify".into());
    if module.mesh.world() > 1 {
        passes.push("shard".into());
        passes.push("partition".into());
        // Collectives are operators now, and sums among them travel once.
        passes.push("simplify".into());
    }
    passes.join(" | ")
}

fn kernels(module: &Module, options: &Options) -> String {
    let mut passes = vec![];
    // Before `group`, since each piece is a kernel of its own.
    if module.mesh.world() > 1 {
        match options.overlap {
            OverlapChoice::Off => {}
            OverlapChoice::Auto => passes.push("overlap".into()),
            OverlapChoice::Pieces(pieces) => passes.push(text("overlap", &Overlap { pieces })),
        }
    }
    passes.push(match options.mesh.pp {
        1 => "group".into(),
        _ => text("group", &Group { stages: true }),
    });
    passes.join(" | ")
}

/// The passes over each rank's program after `unroll`, `stages` and `remat`.
pub fn closing(policy: &MemoryPolicy) -> String {
    let passes = [
        // First, so that what follows sees the gathers of each block in that block.
        "prefetch".into(),
        // In the old order of the program, where a value's last reader is known.
        "in-place".into(),
        text("hide-comm", &HideComm { gradients: policy.gradients, eager: policy.eager }),
        // Joins what `hide-comm` has put side by side.
        "bucket".into(),
        // Copies to and from the host around each user, so it needs the final order.
        "offload-optimizer".into(),
        // Adds waits, so live ranges follow from it, and offsets from live ranges.
        "lanes".into(),
        "liveness".into(),
        "allocate".into(),
    ];
    passes.join(" | ")
}

impl fmt::Display for DefaultPipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut passes = vec![self.graph.clone()];
        if self.hoists {
            // On the graph of one rank, before kernels hide the collectives.
            passes.push("hoist-collectives".into());
        }
        passes.push(self.kernels.clone());
        passes.push("unroll".into());
        // On programs, where each instruction has its micro-batch and block.
        passes.extend(self.stages.as_ref().map(|stages| text("stages", stages)));
        // On what each rank holds; before `remat`, which goes by the room that is left.
        if self.policy.sleeping_parameters {
            passes.push("residencies".into());
        }
        // After `stages`: each rank has memory of its own. Before the order is changed, which live ranges follow.
        if self.policy.asks() {
            passes.push(text("remat", &self.policy.remat()));
        }
        passes.push(closing(&self.policy));
        f.write_str(&passes.join(" | "))
    }
}
