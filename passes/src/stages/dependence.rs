//! The data flow of a program before it is parted: what each instruction depends on, and which phase of a step it is.

use plan::{Buffer, BufferId, BufferKind, Emit, Op, Slice, When};
use program::{DefUse, Origin, RankProgram};

/// Which phase of a step an instruction is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// What precedes the first micro-batch.
    Before,
    Forward(usize),
    Backward(usize),
    /// The optimiser, and what else follows the last micro-batch.
    After,
}

/// What an instruction depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependence {
    /// Feeds, counters and constants: any rank can compute it for itself, with those that it exchanges them with.
    Replicated,
    /// Parameters and no feeds, so that it is the same for all micro-batches.
    ParamsOnly,
    Data,
}

pub struct Dataflow<'a> {
    pub program: &'a RankProgram,
    pub def_use: DefUse,
    pub emits: &'a [Emit],
    pub microbatches: usize,
    /// By instruction.
    pub dependences: Vec<Dependence>,
    pub phases: Vec<Phase>,
}

impl<'a> Dataflow<'a> {
    pub fn new(program: &'a RankProgram, emits: &'a [Emit]) -> Self {
        let last = program.instructions.iter().filter_map(|i| i.origin.microbatch).max();
        let microbatches = last.map_or(1, |last| last as usize + 1);
        let (dependences, phases) = (vec![], vec![]);
        let mut flow = Self { program, def_use: program.def_use(), emits, microbatches, dependences, phases };
        flow.dependences = flow.dependences();
        flow.phases = flow.phases();
        flow
    }

    pub fn len(&self) -> usize {
        self.program.instructions.len()
    }

    /// Number of buffers, persistent ones first.
    pub fn buffers(&self) -> usize {
        self.program.buffers.len()
    }

    pub fn buffer(&self, id: BufferId) -> &Buffer {
        self.program.buffer(id)
    }

    /// The persistent buffers.
    pub fn persistent(&self) -> &'a [Buffer] {
        &self.program.buffers[..self.program.persistent]
    }

    pub fn op(&self, index: usize) -> &Op {
        &self.program.instructions[index].op
    }

    pub fn origin(&self, index: usize) -> Origin {
        self.program.instructions[index].origin
    }

    pub fn reads(&self, index: usize) -> impl Iterator<Item = Slice> {
        self.def_use.reads(index)
    }

    pub fn writes(&self, index: usize) -> impl Iterator<Item = Slice> {
        self.def_use.writes(index)
    }

    /// Whether it emits one number of the whole step, such as the loss: the first rank tells it, once all is done.
    pub fn reports(&self, index: usize) -> bool {
        let Op::Emit { emit, .. } = self.op(index) else { return false };
        self.emits.get(emit.index()).is_some_and(|e| e.when == When::Always && e.ty.dims.is_empty())
    }

    fn dependences(&self) -> Vec<Dependence> {
        let replicated = |b: &plan::Buffer| !b.is_persistent() || b.kind == BufferKind::State;
        let mut common: Vec<bool> = self.program.buffers.iter().map(replicated).collect();
        let mut fed = vec![false; self.buffers()];
        let dependence = |i: usize| {
            let is_common = self.reads(i).all(|s| common[s.buffer.index()]);
            let is_fed = matches!(self.op(i), Op::Feed { .. }) || self.reads(i).any(|s| fed[s.buffer.index()]);
            for slice in self.writes(i) {
                common[slice.buffer.index()] &= is_common;
                fed[slice.buffer.index()] |= is_fed;
            }
            match (is_common, is_fed) {
                (true, _) => Dependence::Replicated,
                (false, false) => Dependence::ParamsOnly,
                (false, true) => Dependence::Data,
            }
        };
        let mut dependences: Vec<Dependence> = (0..self.len()).map(dependence).collect();
        // Whoever makes a part of a tensor makes it for all that read the whole.
        let mut own = vec![false; self.buffers()];
        for i in (0..self.len()).filter(|&i| dependences[i] == Dependence::Data) {
            self.writes(i).for_each(|s| own[s.buffer.index()] = true);
        }
        for (i, dependence) in dependences.iter_mut().enumerate() {
            if self.writes(i).any(|s| own[s.buffer.index()]) {
                *dependence = Dependence::Data;
            }
        }
        dependences
    }

    /// Where there is a loop over micro-batches, all of it is forward or backward.
    fn phases(&self) -> Vec<Phase> {
        let first = self.program.instructions.iter().position(|i| i.origin.microbatch.is_some());
        let (looped, begin) = (first.is_some(), first.unwrap_or(0));
        let phase = |i: usize| match (self.origin(i).microbatch, self.origin(i).phase) {
            (Some(m), plan::Phase::Forward) => Phase::Forward(m as usize),
            (Some(m), _) => Phase::Backward(m as usize),
            _ if looped && i < begin => Phase::Before,
            _ if looped || self.reports(i) => Phase::After,
            (None, plan::Phase::Forward) => Phase::Forward(0),
            (None, plan::Phase::Backward) => Phase::Backward(0),
            (None, plan::Phase::Update) => Phase::After,
        };
        (0..self.len()).map(phase).collect()
    }
}
