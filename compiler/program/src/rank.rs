//! The program of one rank: its buffers and instructions in the order in which they are issued.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cost::Unit;
use plan::{Access, Buffer, BufferId, Kept, Kernel, KernelId, PlaceId, Slice};
use types::Name;

use crate::{DefUse, Instruction, PlaceTable};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RankProgram {
    /// Those of the module.
    pub kernels: Arc<[Kernel]>,
    /// Persistent ones first: the same parameters and states on every rank, held or not.
    pub buffers: Vec<Buffer>,
    /// How many of the buffers are persistent.
    pub persistent: usize,
    /// By persistent buffer: whether this rank holds it. A rank of a pipeline holds those of its stages.
    pub held: Vec<bool>,
    /// By persistent buffer: the parameter that it holds a moment or a copy of.
    pub owner: Vec<Option<BufferId>>,
    pub instructions: Vec<Instruction>,
    /// Ascending; the first begins with the first instruction.
    pub turns: Vec<Turn>,
    /// By block: the persistent buffers that no other block reads in its forward.
    pub blocks: Vec<Vec<BufferId>>,
    /// Values that must end in a persistent buffer.
    pub updates: Vec<Update>,
    /// Buffers that are written before the first micro-batch and serve all of them.
    pub once: BTreeSet<BufferId>,
    /// What this rank has to know of the pipeline that it is part of.
    pub pipeline: Pipeline,
    /// The next free id of a collective.
    pub collectives: u32,
    pub places: Arc<PlaceTable>,
    /// Empty until the pass `lanes` has run; so are events and units.
    pub lanes: Vec<Lane>,
    pub events: u32,
    pub units: Vec<plan::Unit>,
    /// What was decided about values that wait for the backward.
    pub kept: Vec<Kept>,
    /// Bytes of the arena on the device and of that on the host, without persistent buffers; 0 until `allocate` has run.
    pub arena_bytes: u64,
    pub host_bytes: u64,
}

/// A stretch of instructions: a turn of a loop over micro-batches, a block, or what stands between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its first instruction.
    pub at: usize,
    /// True for each iteration of a loop over layers (it carries a value and reads parameters of its own), and for the code
    /// between two such iterations.
    pub is_block: bool,
    /// In a pipeline, if work on another micro-batch or stage begins here: its number, from 1 in the order of
    /// [`Pipeline::units`]; 0 is what comes before the first and `u32::MAX` what follows the last.
    pub unit: Option<u32>,
}

/// A value that must end in a persistent buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    pub value: Slice,
    pub home: BufferId,
}

/// A rank's part in a pipeline.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pipeline {
    /// The rank's position among the ranks that send each other messages.
    pub rank: usize,
    /// Its work, in the order of the schedule.
    pub units: Vec<Unit>,
    /// By the id of a send: the number of the unit that waits until it is taken. Others are waited for at the end.
    pub settles: BTreeMap<u32, u32>,
}

/// What a lane serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lane {
    Compute,
    /// Feeds, and copies to the host and back.
    Copy,
    /// The collectives of a group; or the messages on one way between two of its positions, sender first.
    Comm {
        group: Vec<Name>,
        way: Option<[i64; 2]>,
    },
}

impl RankProgram {
    pub fn accesses(&self, kernel: KernelId) -> &[Access] {
        self.kernels.get(kernel.index()).map_or(&[], |k| &k.args)
    }

    /// The slices that an instruction touches, and how.
    pub fn touches<'s>(&'s self, instruction: &'s Instruction) -> impl Iterator<Item = (Slice, Access)> + 's {
        instruction.op.slices(|k| self.accesses(k))
    }

    /// # Panics
    /// If there is no such buffer, which the verifier rules out.
    pub fn buffer(&self, id: BufferId) -> &Buffer {
        &self.buffers[id.index()]
    }

    pub const fn is_persistent(&self, id: BufferId) -> bool {
        id.index() < self.persistent
    }

    pub fn add_buffer(&mut self, buffer: Buffer) -> BufferId {
        self.buffers.push(buffer);
        BufferId::new(self.buffers.len() - 1)
    }

    /// An id for a collective that no other rank shares the number of.
    pub fn next_collective(&mut self) -> u32 {
        self.collectives += 1;
        self.collectives - 1
    }

    /// Who reads and writes what, as the program is now.
    pub fn def_use(&self) -> DefUse {
        DefUse::of(self)
    }

    /// The place that several have in common.
    pub fn common_place(&mut self, of: &[PlaceId]) -> PlaceId {
        match of.split_first() {
            Some((first, others)) if others.iter().all(|other| other == first) => *first,
            Some(_) => Arc::make_mut(&mut self.places).common(of),
            None => PlaceId::new(0),
        }
    }
}
