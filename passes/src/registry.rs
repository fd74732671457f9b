//! Every pass by its name in pipelines, in the order in which a pipeline usually runs them.

use diag::Diagnostics;
use ir::Module;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use target::NoTarget;

use crate::{
    Allocate, Autodiff, Bucket, Context, Fuse, HideComm, HoistCasts, HoistCollectives, InPlace, Inline, Lanes,
    Liveness, Microbatches, NarrowWeights, OffloadOptimizer, Optimizer, Overlap, Partition, Pass, Precision, Prefetch,
    ProgramPass, RankPass, Recompute, Remat, Residencies, Shard, Simplify, Stages,
};

/// A pass by what it works on.
pub enum AnyPass {
    Graph(Box<dyn Pass>),
    /// From the graph to programs.
    Unroll,
    Programs(Box<dyn ProgramPass>),
    /// Each rank's program by itself.
    Rank(Box<dyn RankPass>),
}

/// A pass is a struct of its options with their defaults; names and types of options come from there alone.
pub struct Entry {
    pub name: &'static str,
    /// One line for listings.
    pub summary: &'static str,
    defaults: fn() -> Map<String, Value>,
    make: fn(Map<String, Value>) -> Result<AnyPass, String>,
}

pub const REGISTRY: &[Entry] = &[
    entry::<Precision>("precision", "decides what the working type is"),
    entry::<Recompute>("recompute", "marks the blocks whose activations are computed again in the backward"),
    entry::<Autodiff>("autodiff", "appends the gradient of each loss"),
    entry::<Microbatches>("microbatches", "repeats the step for each part of the batch and adds up gradients"),
    entry::<Optimizer>("optimizer", "appends the update of each parameter that has a gradient"),
    entry::<Inline>("inline", "replaces plain calls by what they call"),
    entry::<Fuse>("fuse", "makes one of a repeated call and the backward that computes it again"),
    entry::<HoistCasts>("hoist-casts", "casts what the turns of a loop share once, before the first of them"),
    entry::<NarrowWeights>("narrow-weights", "stores weights in the type in which they are read"),
    entry::<Simplify>("simplify", "rewrites operators and collectives to cheaper ones that compute the same"),
    entry::<Shard>("shard", "gives every tensor its sharding over the mesh"),
    entry::<Partition>("partition", "makes the program of one rank, with its collectives"),
    entry::<HoistCollectives>(
        "hoist-collectives",
        "gathers parameters and scatters gradients once a step instead of in each micro-batch",
    ),
    entry::<Overlap>("overlap", "cuts products and the collectives beside them into pieces where ranks would wait"),
    entry::<Group>("group", "asks the target which operators form a kernel"),
    Entry {
        name: "unroll",
        summary: "writes the programs out as instructions over buffers",
        defaults: Map::new,
        make: |options| made::<NoOptions>(options).map(|_| AnyPass::Unroll),
    },
    Entry {
        name: "stages",
        summary: "parts programs among the ranks of a pipeline",
        defaults: defaults::<Stages>,
        make: |options| Ok(AnyPass::Programs(Box::new(made::<Stages>(options)?))),
    },
    Entry {
        name: "residencies",
        summary: "lets parameters that other programs need sleep in the host's memory",
        defaults: defaults::<Residencies>,
        make: |options| Ok(AnyPass::Programs(Box::new(made::<Residencies>(options)?))),
    },
    rank::<Remat>("remat", "drops or offloads values between their forward and their backward"),
    rank::<Prefetch>("prefetch", "gathers parameters anew in each block that reads them"),
    rank::<InPlace>("in-place", "writes updates of parameters and state where they belong"),
    rank::<HideComm>("hide-comm", "orders instructions so that communication travels beside compute"),
    rank::<Bucket>("bucket", "joins small collectives"),
    rank::<OffloadOptimizer>("offload-optimizer", "copies optimiser state in the host's memory to the device and back"),
    rank::<Lanes>("lanes", "puts instructions on lanes, with the events that order them"),
    rank::<Liveness>("liveness", "finds the live range of each buffer"),
    rank::<Allocate>("allocate", "gives each buffer its offset"),
];

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoOptions {}

impl Entry {
    /// Each option with its default.
    pub fn options(&self) -> Vec<(String, String)> {
        (self.defaults)().into_iter().map(|(name, value)| (name, plain(&value))).collect()
    }

    /// The pass with these options; all others have their defaults.
    pub fn make(&self, options: Map<String, Value>) -> Result<AnyPass, String> {
        (self.make)(options)
    }
}

const fn entry<P: Pass + Default + Serialize + DeserializeOwned + 'static>(
    name: &'static str,
    summary: &'static str,
) -> Entry {
    let make = |options: Map<String, Value>| Ok(AnyPass::Graph(Box::new(made::<P>(options)?)));
    Entry { name, summary, defaults: defaults::<P>, make }
}

const fn rank<P: RankPass + Default + Serialize + DeserializeOwned + 'static>(
    name: &'static str,
    summary: &'static str,
) -> Entry {
    let make = |options: Map<String, Value>| Ok(AnyPass::Rank(Box::new(made::<P>(options)?)));
    Entry { name, summary, defaults: defaults::<P>, make }
}

fn defaults<P: Default + Serialize>() -> Map<String, Value> {
    match serde_json::to_value(P::default()) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

fn made<P: DeserializeOwned>(options: Map<String, Value>) -> Result<P, String> {
    serde_json::from_value(Value::Object(options)).map_err(|e| e.to_string())
}

/// A pass with all its options, as pipelines have it.
pub fn text(name: &str, options: &impl Serialize) -> String {
    let Ok(Value::Object(fields)) = serde_json::to_value(options) else { return name.into() };
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect();
    format!("{name}{{{}}}", fields.join(","))
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// [`crate::group`] for the context's target; without one, for the target `none`.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Group {
    /// The plan will be a pipeline's.
    pub stages: bool,
}

impl Pass for Group {
    fn run(&self, module: &mut Module, cx: &mut Context<'_>) -> Result<(), Diagnostics> {
        crate::group(module, cx.target.unwrap_or(&NoTarget), self.stages)
    }
}
