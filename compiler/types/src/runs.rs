//! When the runtime runs a program.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Runs {
    /// As often as the user asks: a train step.
    #[default]
    Asked,
    /// So often, before the plan goes on with its next program.
    Times(u64),
    /// When the host calls it, in any order with others; it fills the feeds before each call.
    OnDemand,
    /// Before other programs, whenever parameters that it reads have new values: it computes prepared values.
    Prepare,
}
