//! What a model's `plan` function asks for: data for the passes, which may say why a directive cannot be met.

use diag::Span;
use types::Name;

#[derive(Clone, Debug, PartialEq)]
pub enum PlanDirective {
    /// Cut this dim over this mesh axis wherever it occurs.
    Shard {
        dim: Name,
        axis: String,
    },
    /// Cut the stack of this many modules into stages.
    Pipeline {
        dim: Name,
        axis: String,
        schedule: String,
    },
    /// Keep parameters in parts over these mesh axes, gathered when they are used.
    Fsdp {
        axes: Vec<String>,
    },
    Recompute(String),
    Offload(String),
    Precision(String),
}

/// In the order written, with where each stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanDirectives(pub Vec<(PlanDirective, Span)>);
