//! A program as it was written out, seen as a graph: what reads what, what it depends on, and which part of a step it is.

use plan::{Access, Buffer, BufferId, BufferKind, Emit, Kernel, Op, Slice, When};

use super::super::unroll::{Origins, Unrolled};
use super::super::update::accesses;

/// Which part of a step an instruction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Before,
    Forward(usize),
    Backward(usize),
    /// The optimiser, and what else follows the last micro-batch.
    After,
}

/// What an instruction depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// Feeds, counters and constants: any rank can do it for itself, with those that it exchanges them with.
    Common,
    /// Parameters and not on feeds, so that it is the same for all micro-batches.
    Rooted,
    Own,
}

pub struct Written<'a> {
    pub unrolled: &'a Unrolled,
    pub origins: &'a Origins,
    pub kernels: &'a [Kernel],
    pub persistent: &'a [Buffer],
    pub emits: &'a [Emit],
    pub microbatches: usize,
    pub natures: Vec<Nature>,
    pub parts: Vec<Part>,
}

impl<'a> Written<'a> {
    pub fn new(
        unrolled: &'a Unrolled,
        origins: &'a Origins,
        kernels: &'a [Kernel],
        persistent: &'a [Buffer],
        emits: &'a [Emit],
    ) -> Self {
        let microbatches = origins.of.iter().filter_map(|o| o.microbatch).max().map_or(1, |last| last + 1);
        let (natures, parts) = (vec![], vec![]);
        let mut written = Self { unrolled, origins, kernels, persistent, emits, microbatches, natures, parts };
        written.natures = written.natures();
        written.parts = written.parts();
        written
    }

    pub fn len(&self) -> usize {
        self.unrolled.instructions.len()
    }

    /// Number of buffers, persistent ones first.
    pub fn buffers(&self) -> usize {
        self.persistent.len() + self.unrolled.buffers.len()
    }

    pub fn buffer(&self, id: BufferId) -> &Buffer {
        match id.index().checked_sub(self.persistent.len()) {
            None => &self.persistent[id.index()],
            Some(own) => &self.unrolled.buffers[own],
        }
    }

    pub fn op(&self, index: usize) -> &Op {
        &self.unrolled.instructions[index].op
    }

    pub fn touches(&self, index: usize) -> impl Iterator<Item = (Slice, Access)> {
        self.op(index).slices(|k| accesses(self.kernels, k))
    }

    pub fn reads(&self, index: usize) -> impl Iterator<Item = Slice> {
        self.touches(index).filter(|(_, a)| a.reads()).map(|(s, _)| s)
    }

    pub fn writes(&self, index: usize) -> impl Iterator<Item = Slice> {
        self.touches(index).filter(|(_, a)| a.writes()).map(|(s, _)| s)
    }

    /// Whether it emits one number of the whole step, such as the loss: the first rank tells it, once all is done.
    pub fn reports(&self, index: usize) -> bool {
        let Op::Emit { emit, .. } = self.op(index) else { return false };
        self.emits.get(emit.index()).is_some_and(|e| e.when == When::Always && e.ty.dims.is_empty())
    }

    fn natures(&self) -> Vec<Nature> {
        let persistent = self.persistent.iter().map(|b| b.kind == BufferKind::State);
        let mut common: Vec<bool> = persistent.chain(self.unrolled.buffers.iter().map(|_| true)).collect();
        let mut fed = vec![false; self.buffers()];
        let nature = |i: usize| {
            let is_common = self.reads(i).all(|s| common[s.buffer.index()]);
            let is_fed = matches!(self.op(i), Op::Feed { .. }) || self.reads(i).any(|s| fed[s.buffer.index()]);
            for slice in self.writes(i) {
                common[slice.buffer.index()] &= is_common;
                fed[slice.buffer.index()] |= is_fed;
            }
            match (is_common, is_fed) {
                (true, _) => Nature::Common,
                (false, false) => Nature::Rooted,
                (false, true) => Nature::Own,
            }
        };
        let mut natures: Vec<Nature> = (0..self.len()).map(nature).collect();
        // Whoever makes a part of a tensor makes it for all that read the whole.
        let mut own = vec![false; self.buffers()];
        for i in (0..self.len()).filter(|&i| natures[i] == Nature::Own) {
            self.writes(i).for_each(|s| own[s.buffer.index()] = true);
        }
        for (i, nature) in natures.iter_mut().enumerate() {
            if self.writes(i).any(|s| own[s.buffer.index()]) {
                *nature = Nature::Own;
            }
        }
        natures
    }

    /// A forward is what leads to emits that are always given, a backward what leads to gradients. Where there is a loop over
    /// micro-batches, all of it is one of the two.
    fn parts(&self) -> Vec<Part> {
        let leads = |always: bool| {
            self.lead_to(|op| match op {
                Op::Emit { emit, .. } => {
                    self.emits.get(emit.index()).is_some_and(|e| (e.when == When::Always) == always)
                }
                _ => false,
            })
        };
        let (forward, backward) = (leads(true), leads(false));
        let looped = self.origins.of.iter().any(|o| o.microbatch.is_some());
        let begin = self.origins.of.iter().position(|o| o.microbatch.is_some()).unwrap_or(0);
        let part = |i: usize| match self.origins.of[i].microbatch {
            Some(m) if forward[i] => Part::Forward(m),
            Some(m) => Part::Backward(m),
            None if looped && i < begin => Part::Before,
            None if looped || self.reports(i) => Part::After,
            None if forward[i] => Part::Forward(0),
            None if backward[i] => Part::Backward(0),
            None => Part::After,
        };
        (0..self.len()).map(part).collect()
    }

    /// By instruction: whether any of these needs it.
    fn lead_to(&self, ends: impl Fn(&Op) -> bool) -> Vec<bool> {
        let mut wanted = vec![false; self.buffers()];
        let mut leads = vec![false; self.len()];
        for i in (0..self.len()).rev() {
            leads[i] = ends(self.op(i)) || self.writes(i).any(|s| wanted[s.buffer.index()]);
            if leads[i] {
                self.reads(i).for_each(|s| wanted[s.buffer.index()] = true);
            }
        }
        leads
    }
}
