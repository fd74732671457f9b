//! What became of the values that a forward makes and a backward reads: kept, computed again, or left in the host's memory.

use serde::{Deserialize, Serialize};
use types::Name;

use crate::PlaceId;

/// Values of one place in the model, on one rank and in one run of a program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The kernel or the collective that makes them, or what they are.
    pub what: Name,
    pub place: PlaceId,
    pub way: Way,
    /// How many tensors.
    pub count: u32,
    /// What they would hold, if kept, when the most is held.
    pub bytes: u64,
    /// What it takes to compute them again or to copy them out and in, before anything hides it. For what is kept: what it
    /// would take at least.
    pub seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Way {
    Kept,
    Recomputed,
    Offloaded,
}

impl Way {
    pub const fn name(self) -> &'static str {
        match self {
            Way::Kept => "kept",
            Way::Recomputed => "recomputed",
            Way::Offloaded => "offloaded",
        }
    }
}
