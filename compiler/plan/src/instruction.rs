//! An instruction: one step of one lane.

use std::slice;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use types::{DType, Name};

use crate::{Access, Affine, EmitId, EventId, FeedId, KernelId, LaneId, PlaceId, Slice};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instruction {
    pub lane: LaneId,
    pub place: PlaceId,
    pub origin: Origin,
    pub op: Op,
}

/// Where in a step an instruction stands. Set once, when the program is written out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    pub phase: Phase,
    /// A number that instructions of one block share: one iteration of a loop over layers. None between blocks.
    pub block: Option<u32>,
    /// None outside of the loop over micro-batches.
    pub microbatch: Option<u32>,
}

/// In the order of precedence: what leads to the loss and to a gradient is of the forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    #[default]
    Forward,
    Backward,
    /// The optimiser, and what else leads to no result.
    Update,
}

impl Phase {
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Forward => "forward",
            Phase::Backward => "backward",
            Phase::Update => "optimiser",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    Launch(Launch),
    Collect(Box<Collect>),
    Copy {
        from: Slice,
        to: Slice,
    },
    /// Marks all that this lane did so far as done. Each event is recorded once a run.
    Record {
        event: EventId,
    },
    /// Holds this lane until the event is recorded.
    Wait {
        event: EventId,
    },
    /// Fills a slice with the feed's values of this step.
    Feed {
        feed: FeedId,
        to: Slice,
    },
    /// Hands a slice to whoever asked for the emit, and does nothing if no one did.
    Emit {
        emit: EmitId,
        from: Slice,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    pub kernel: KernelId,
    pub args: Vec<Slice>,
    pub scalars: Vec<Affine>,
}

/// A collective or a message between ranks.
///
/// A rank's position in its group is its coordinates on the group's axes, read as one number, first axis major. All
/// slices of one instruction travel together; `from[i]` and `to[i]` are one tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Collect {
    /// The same on all ranks that take part, and unique in the plan.
    pub id: u32,
    pub kind: CollectKind,
    /// The mesh axes that span the group; ranks that agree on all others form one group.
    pub group: Vec<Name>,
    pub from: Vec<Slice>,
    pub to: Vec<Slice>,
    /// Why the compiler put it here: `matmul needs L whole over tp`.
    pub why: Name,
}

/// With n ranks in the group; `from` and `to` never overlap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CollectKind {
    /// `to[i]` is the reduction of all ranks' `from[i]`, taken in the order of positions.
    AllReduce(Reduce),
    /// `to[i]` is all ranks' `from[i]` side by side, in the order of positions.
    AllGather,
    /// `from[i]` is n pieces; `to[i]` is the reduction of the ranks' pieces at this rank's position.
    ReduceScatter(Reduce),
    /// `from[i]` is n pieces, of which the j-th goes to position j; `to[i]` is what came, in the order of positions.
    AllToAll,
    /// Peers are positions in the group.
    Broadcast {
        root: Affine,
    },
    /// One exchange: `from[i]` goes to `to[i]` of the rank `shifts[i]` further on around the group.
    Permute {
        shifts: Vec<i64>,
    },
    Send {
        peer: Affine,
    },
    Receive {
        peer: Affine,
    },
}

/// Sums of bf16 are kept in f32 and rounded once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reduce {
    pub kind: ReduceKind,
    pub dtype: DType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReduceKind {
    Sum,
    Max,
}

impl CollectKind {
    pub const fn name(&self) -> &'static str {
        match self {
            CollectKind::AllReduce(_) => "all_reduce",
            CollectKind::AllGather => "all_gather",
            CollectKind::ReduceScatter(_) => "reduce_scatter",
            CollectKind::AllToAll => "all_to_all",
            CollectKind::Broadcast { .. } => "broadcast",
            CollectKind::Permute { .. } => "permute",
            CollectKind::Send { .. } => "send",
            CollectKind::Receive { .. } => "receive",
        }
    }
}

impl Op {
    /// The slices that this instruction touches, and how. `kernel` gives the declared accesses of a launch's kernel.
    pub fn touches<'p>(&self, kernel: impl Fn(KernelId) -> &'p [Access]) -> SmallVec<[(Slice, Access); 8]> {
        self.slices(kernel).collect()
    }

    /// The same, one after another.
    pub fn slices<'p>(&self, kernel: impl Fn(KernelId) -> &'p [Access]) -> impl Iterator<Item = (Slice, Access)> {
        let (args, accesses): (&[Slice], &[Access]) = match self {
            Op::Launch(launch) => (&launch.args, kernel(launch.kernel)),
            _ => (&[], &[]),
        };
        let (from, to): (&[Slice], &[Slice]) = match self {
            Op::Launch(_) | Op::Record { .. } | Op::Wait { .. } => (&[], &[]),
            Op::Collect(collect) => (&collect.from, &collect.to),
            Op::Copy { from, to } => (slice::from_ref(from), slice::from_ref(to)),
            Op::Feed { to, .. } => (&[], slice::from_ref(to)),
            Op::Emit { from, .. } => (slice::from_ref(from), &[]),
        };
        let launch = args.iter().copied().zip(accesses.iter().copied());
        let from = from.iter().map(|slice| (*slice, Access::Read));
        launch.chain(from).chain(to.iter().map(|slice| (*slice, Access::Write)))
    }

    /// The slices that this instruction touches, in the same order, to change them.
    pub fn slices_mut(&mut self) -> impl Iterator<Item = &mut Slice> {
        let (first, second): (&mut [Slice], &mut [Slice]) = match self {
            Op::Launch(launch) => (&mut launch.args, &mut []),
            Op::Collect(collect) => {
                let collect = &mut **collect;
                (&mut collect.from, &mut collect.to)
            }
            Op::Copy { from, to } => (slice::from_mut(from), slice::from_mut(to)),
            Op::Feed { to, .. } => (slice::from_mut(to), &mut []),
            Op::Emit { from, .. } => (slice::from_mut(from), &mut []),
            Op::Record { .. } | Op::Wait { .. } => (&mut [], &mut []),
        };
        first.iter_mut().chain(second)
    }
}
