//! Graph-to-graph passes, one file each, and the pipeline that runs them.

mod allocate;
mod autodiff;
mod blame;
mod callgraph;
mod group;
mod inline;
mod microbatches;
mod once;
mod optimizer;
mod partition;
mod pipeline;
mod precision;
mod recompute;
mod registry;
mod schedule;
mod shard;
mod simplify;
mod stages;
mod stats;

pub use allocate::allocate;
pub use autodiff::Autodiff;
pub use group::group;
pub use inline::Inline;
pub use microbatches::Microbatches;
pub use once::Once;
pub use optimizer::{Optimizer, OptimizerKind, Schedule};
pub use partition::Partition;
pub use pipeline::{Context, Pass, Pipeline, PipelineError};
pub use precision::{Precision, WorkType};
pub use recompute::{Mode, Recompute};
pub use registry::{Entry, REGISTRY};
pub use schedule::{Gradients, Pipelining, kernels, schedule};
pub use shard::Shard;
pub use simplify::Simplify;
pub use stages::{Grid, Invalid, Kind, Span, StageSchedule, Timeline, Unit, balance};
pub use stats::{PassStats, Stats};
