//! An instruction, and where it comes from.

use plan::{CollectKind, LaneId, Op, Phase, PlaceId, Slice};

#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// The first lane until the pass `lanes` has run.
    pub lane: LaneId,
    pub op: Op,
    pub origin: Origin,
    /// Of a small collective, from `hide-comm` to `bucket`: which others it may be issued with.
    pub joins: Option<Joins>,
}

/// A collective may be issued with later ones of its kind, group and block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joins {
    /// A number that those of one block share.
    pub block: u32,
    /// The instruction before which it is issued at the latest.
    pub until: u32,
}

/// Where an instruction comes from. Set when the program is unrolled; what a pass adds has the origin of its cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The place in the model, an index into the program's [`crate::PlaceTable`].
    pub place: PlaceId,
    /// The number of this instruction in its micro-batch: instructions of different micro-batches with one number do the
    /// same. Outside of micro-batches each has a number of its own.
    pub site: u32,
    pub phase: Phase,
    /// The block it belongs to, an index into [`crate::RankProgram::blocks`]; none between blocks.
    pub block: Option<u32>,
    /// The turn of the loop over micro-batches; none outside of it.
    pub microbatch: Option<u32>,
}

impl Origin {
    pub const fn at(place: PlaceId) -> Self {
        Self { place, site: 0, phase: Phase::Forward, block: None, microbatch: None }
    }

    /// As plans have it.
    pub const fn in_plan(self) -> plan::Origin {
        plan::Origin { phase: self.phase, block: self.block, microbatch: self.microbatch }
    }
}

impl Instruction {
    pub const fn new(op: Op, origin: Origin) -> Self {
        Self { lane: LaneId(0), op, origin, joins: None }
    }

    pub fn copy(from: Slice, to: Slice, origin: Origin) -> Self {
        Self::new(Op::Copy { from, to }, origin)
    }
}

/// Whether an instruction sends to one rank or receives from one.
pub fn is_message(op: &Op) -> bool {
    matches!(op, Op::Collect(c) if matches!(c.kind, CollectKind::Send { .. } | CollectKind::Receive { .. }))
}
