//! The plan, its classes of ranks, and the programs each class runs.

use std::fmt;

use serde::{Deserialize, Serialize};
use types::{Name, Runs};

use crate::{
    Access, Buffer, BufferId, ClassId, Emit, Feed, Header, Instruction, Kept, Kernel, KernelId, LaneId, Manifest,
    Place, Ranks, Residency, ResidencyId, Scope,
};

#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub header: Header,
    pub kernels: Vec<Kernel>,
    /// A partition of the world: one class, or one for each rank of a pipeline.
    pub classes: Vec<Class>,
    pub residencies: Vec<Residency>,
    /// They share parameters, state and one arena, as large as the largest of them needs.
    pub programs: Vec<Program>,
    pub manifest: Manifest,
    pub places: Vec<Place>,
    /// The shared object that holds the kernels; empty for the target `none`.
    pub object: Vec<u8>,
}

/// Ranks that run the same programs on the same buffers, and differ in their mesh coordinates alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Class {
    pub name: Name,
    pub ranks: Ranks,
    /// Parameters, optimiser moments and other state, which all programs share: the first bytes of the arena.
    pub persistent: Vec<Buffer>,
}

/// A straight-line program: (state, feeds, step) -> (state, emits). Its feeds and emits are its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// The task: `train`, `forward`, `sample`, ...
    pub name: Name,
    pub runs: Runs,
    /// What must be in the arena before it runs; none if it touches only what always lies there.
    pub residency: Option<ResidencyId>,
    /// Of one run on the whole world, so that tokens a second mean what users expect.
    pub tokens: u64,
    /// Of one run on the whole world.
    pub flops: u128,
    pub feeds: Vec<Feed>,
    pub emits: Vec<Emit>,
    /// One for each class of the plan, in that order.
    pub bodies: Vec<Body>,
}

/// What the ranks of one class do in one run of a program.
///
/// [`BufferId`]s count the class's persistent buffers first and then `buffers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Body {
    pub buffers: Vec<Buffer>,
    /// Lanes run at the same time; the instructions of one lane run one after another.
    pub lanes: Vec<LaneKind>,
    /// All lanes' instructions in schedule order: running them one by one in this order is correct.
    pub instructions: Vec<Instruction>,
    /// Number of events.
    pub events: u32,
    /// Size of the arena, persistent buffers included.
    pub arena_bytes: u64,
    /// The same of the arena in the host's memory; 0 where nothing is offloaded.
    pub host_bytes: u64,
    /// In a pipeline: the work of its stages on micro-batches, in the order of instructions.
    pub units: Vec<Unit>,
    /// What was decided about values that wait for the backward; empty where nobody asked.
    pub kept: Vec<Kept>,
}

/// One stage's work on one micro-batch: instructions that follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    pub stage: u32,
    pub microbatch: u32,
    pub kind: UnitKind,
    /// The first instruction, and the one after the last.
    pub first: u32,
    pub end: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum UnitKind {
    Forward,
    /// Gradients of a stage's inputs, and those of its weights unless units of their own follow.
    Backward,
    Weights,
}

impl UnitKind {
    /// As it is written in drawings.
    pub const fn letter(self) -> char {
        match self {
            UnitKind::Forward => 'F',
            UnitKind::Backward => 'B',
            UnitKind::Weights => 'W',
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LaneKind {
    Compute,
    Copy,
    /// One communicator.
    Comm(u32),
}

impl fmt::Display for LaneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LaneKind::Compute => f.pad("compute"),
            LaneKind::Copy => f.pad("copy"),
            LaneKind::Comm(n) => f.pad(&format!("comm{n}")),
        }
    }
}

impl Plan {
    /// The class that a rank belongs to.
    pub fn class_of(&self, rank: usize) -> Option<ClassId> {
        let coordinates = self.header.mesh.coordinates(rank);
        self.classes.iter().position(|c| c.ranks.contain(&self.header.mesh, &coordinates)).map(ClassId::new)
    }

    /// Declared accesses of a kernel; empty for an id out of range, which the verifier reports.
    pub fn accesses(&self, kernel: KernelId) -> &[Access] {
        self.kernels.get(kernel.index()).map_or(&[], |k| &k.args)
    }

    /// A program's body for one class; none for ids out of range.
    pub fn scope(&self, program: usize, class: ClassId) -> Option<Scope<'_>> {
        let (program, class, id) = (self.programs.get(program)?, self.classes.get(class.index())?, class);
        Some(Scope { plan: self, program, class, body: program.bodies.get(id.index())? })
    }

    /// Every program's body for every class, in that order.
    pub fn scopes(&self) -> impl Iterator<Item = Scope<'_>> {
        self.programs.iter().flat_map(|program| self.scopes_of(program))
    }

    /// A program's bodies, by class.
    pub fn scopes_of<'p>(&'p self, program: &'p Program) -> impl Iterator<Item = Scope<'p>> {
        let classes = self.classes.iter().zip(&program.bodies);
        classes.map(move |(class, body)| Scope { plan: self, program, class, body })
    }

    pub fn program(&self, name: &str) -> Option<&Program> {
        self.programs.iter().find(|p| p.name == *name)
    }
}

impl Body {
    pub fn buffer<'a>(&'a self, class: &'a Class, id: BufferId) -> Option<&'a Buffer> {
        match id.index().checked_sub(class.persistent.len()) {
            None => class.persistent.get(id.index()),
            Some(own) => self.buffers.get(own),
        }
    }

    /// All buffers with their ids, persistent ones first.
    pub fn all_buffers<'a>(&'a self, class: &'a Class) -> impl Iterator<Item = (BufferId, &'a Buffer)> {
        class.persistent.iter().chain(&self.buffers).enumerate().map(|(i, b)| (BufferId::new(i), b))
    }

    /// The instructions of one lane, with their places in schedule order.
    pub fn lane(&self, lane: LaneId) -> impl Iterator<Item = (usize, &Instruction)> {
        self.instructions.iter().enumerate().filter(move |(_, i)| i.lane == lane)
    }
}
