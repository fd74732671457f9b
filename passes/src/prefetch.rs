//! `prefetch`: collectives that depend on parameters and state alone, such as gathers of parameters that are cut, are done
//! anew in each block that reads their result, right before the first reader.
//!
//! So what is gathered for one block never lives on to another, and `hide-comm` may issue it with the block before. What the
//! program does before its micro-batches is done once.

use plan::{BufferId, Op, PlaceId, Slice};
use program::{DefUse, Instruction, Origin, RankProgram, is_message};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

use crate::RankPass;
use crate::ranks::RankContext;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prefetch {}

impl RankPass for Prefetch {
    fn run(&self, program: &mut RankProgram, _: &mut RankContext<'_>) {
        prefetch(program);
    }
}

/// By instruction: whether it is a collective that depends on persistent buffers alone, or something that only leads to
/// such collectives.
pub fn params_only(program: &RankProgram, def_use: &DefUse) -> Vec<bool> {
    let count = program.buffers.len();
    // By buffer that anything was written to: whether all of it depends on persistent buffers alone.
    let mut known: Vec<Option<bool>> = (0..count).map(|id| (id < program.persistent).then_some(true)).collect();
    let mut able = Vec::with_capacity(program.instructions.len());
    for (i, instruction) in program.instructions.iter().enumerate() {
        let op = &instruction.op;
        let kind = matches!(op, Op::Launch(_) | Op::Collect(_) | Op::Copy { .. }) && !is_message(op);
        let able_now = kind && def_use.reads(i).all(|s| known[s.buffer.index()] == Some(true));
        for slice in def_use.writes(i) {
            let id = slice.buffer.index();
            known[id] = Some(able_now && id >= program.persistent && known[id].unwrap_or(true));
        }
        able.push(able_now);
    }
    let mut wanted = vec![false; count];
    for (i, instruction) in program.instructions.iter().enumerate().rev() {
        let leads = || def_use.writes(i).any(|s| wanted[s.buffer.index()]);
        able[i] = able[i] && (matches!(instruction.op, Op::Collect(_)) || leads());
        if able[i] {
            for slice in def_use.reads(i).filter(|s| !program.is_persistent(s.buffer)) {
                wanted[slice.buffer.index()] = true;
            }
        }
    }
    able
}

pub fn prefetch(program: &mut RankProgram) {
    let def_use = program.def_use();
    let moves = params_only(program, &def_use);
    let old = std::mem::take(&mut program.instructions);
    let mut makers: FxHashMap<BufferId, Vec<usize>> = FxHashMap::default();
    for i in (0..old.len()).filter(|i| moves[*i]) {
        def_use.writes(i).for_each(|slice| makers.entry(slice.buffer).or_default().push(i));
    }
    let mut turns = std::mem::take(&mut program.turns);
    let updates = std::mem::take(&mut program.updates);
    let once = program.once.iter().copied().collect();
    let mut fetch = Fetch {
        old: &old,
        def_use: &def_use,
        makers,
        out: Vec::with_capacity(old.len()),
        used: FxHashSet::default(),
        once,
        step: Block::default(),
        block: Block::default(),
        reader: Origin::at(PlaceId::new(0)),
        program: &mut *program,
    };
    let mut begins = turns.iter_mut().peekable();
    for (i, instruction) in old.iter().enumerate() {
        while let Some(turn) = begins.next_if(|turn| turn.at <= i) {
            turn.at = fetch.out.len();
            if turn.is_block {
                fetch.block = Block::default();
            }
        }
        if !moves[i] {
            let mut instruction = instruction.clone();
            fetch.reader = instruction.origin;
            instruction.op.slices_mut().for_each(|slice| *slice = fetch.slice(*slice));
            fetch.out.push(instruction);
        }
    }
    begins.for_each(|turn| turn.at = fetch.out.len());
    let value = |mut update: program::Update| {
        update.value = fetch.slice(update.value);
        update
    };
    let updates = updates.into_iter().map(value).collect();
    let out = fetch.out;
    program.instructions = out;
    program.turns = turns;
    program.updates = updates;
}

struct Fetch<'a> {
    /// The program with its new buffers; its instructions come last.
    program: &'a mut RankProgram,
    old: &'a [Instruction],
    def_use: &'a DefUse,
    /// By buffer: the instructions that write it, if they move.
    makers: FxHashMap<BufferId, Vec<usize>>,
    out: Vec<Instruction>,
    /// What was done in any block.
    used: FxHashSet<usize>,
    /// Buffers that are written once a step.
    once: FxHashSet<BufferId>,
    step: Block,
    block: Block,
    /// Of what reads what is fetched.
    reader: Origin,
}

/// What was fetched in a block, or in the whole step.
#[derive(Default)]
struct Block {
    done: FxHashSet<usize>,
    /// The buffer that holds here what another held in the old order.
    instead: FxHashMap<BufferId, BufferId>,
    /// By what they read: instructions without what they write, and that.
    made: FxHashMap<Vec<Slice>, Vec<(Op, Vec<BufferId>)>>,
}

impl Fetch<'_> {
    fn block(&mut self, once: bool) -> &mut Block {
        if once { &mut self.step } else { &mut self.block }
    }

    /// The slice of this block's buffer, after all that makes it.
    fn slice(&mut self, slice: Slice) -> Slice {
        // Makers whose operands are being made, outermost first, each with the makers of its operands that are left. A list
        // of its own and not calls within calls: a chain may be as long as the program.
        let first = self.makers_of(slice.buffer);
        let mut open = if first.is_empty() { vec![] } else { vec![(None, first)] };
        while let Some((maker, left)) = open.last_mut() {
            match (left.pop(), *maker) {
                (Some((next, once)), _) => {
                    if self.block(once).done.insert(next) {
                        open.push((Some((next, once)), self.makers_of_operands(next)));
                    }
                }
                (None, maker) => {
                    open.pop();
                    if let Some((maker, once)) = maker {
                        self.make(maker, once);
                    }
                }
            }
        }
        self.instead(slice)
    }

    fn instead(&mut self, slice: Slice) -> Slice {
        let once = self.once.contains(&slice.buffer);
        Slice { buffer: self.block(once).instead.get(&slice.buffer).copied().unwrap_or(slice.buffer), ..slice }
    }

    /// The instructions that move and write a buffer, the last first, and whether they are done once a step.
    fn makers_of(&self, buffer: BufferId) -> Vec<(usize, bool)> {
        let once = self.once.contains(&buffer);
        self.makers.get(&buffer).into_iter().flatten().rev().map(|&maker| (maker, once)).collect()
    }

    fn makers_of_operands(&self, maker: usize) -> Vec<(usize, bool)> {
        let operands = self.def_use.touches(maker).iter().rev().filter(|(_, access)| !access.writes());
        operands.flat_map(|(slice, _)| self.makers_of(slice.buffer)).collect()
    }

    /// Issues a maker whose operands are made.
    fn make(&mut self, maker: usize, once: bool) {
        let mut instruction = self.old[maker].clone();
        if !once {
            let Origin { place, site, .. } = instruction.origin;
            instruction.origin = Origin { place, site, ..self.reader };
        }
        let writes: Vec<bool> = self.def_use.touches(maker).iter().map(|(_, a)| a.writes()).collect();
        let (mut reads, mut written) = (vec![], vec![]);
        for (slice, writes) in instruction.op.slices_mut().zip(&writes) {
            if *writes {
                written.push(slice.buffer);
            } else {
                *slice = self.instead(*slice);
                reads.push(*slice);
            }
        }
        let bare = bare(&instruction.op, &writes);
        let alike = self.block(once).made.get(&reads).and_then(|made| made.iter().find(|(op, _)| *op == bare));
        // Several copies may write one buffer, so that one of them says nothing of the others.
        if let Some((_, same)) = alike.filter(|_| !matches!(bare, Op::Copy { .. })) {
            let same = same.clone();
            self.block(once).instead.extend(written.into_iter().zip(same));
            return;
        }
        if !self.used.insert(maker) {
            if let Op::Collect(collect) = &mut instruction.op {
                collect.id = self.program.next_collective();
            }
            for &old in &written {
                self.block.instead.entry(old).or_insert_with(|| {
                    let copy = self.program.buffer(old).clone();
                    self.program.add_buffer(copy)
                });
            }
        }
        let instead = &self.block(once).instead;
        for (slice, _) in instruction.op.slices_mut().zip(&writes).filter(|(_, writes)| **writes) {
            slice.buffer = instead.get(&slice.buffer).copied().unwrap_or(slice.buffer);
        }
        let written = written.iter().map(|old| instead.get(old).copied().unwrap_or(*old)).collect();
        self.block(once).made.entry(reads).or_default().push((bare, written));
        self.out.push(instruction);
    }
}

/// What two instructions that do the same have in common.
fn bare(op: &Op, writes: &[bool]) -> Op {
    let mut bare = op.clone();
    for (slice, _) in bare.slices_mut().zip(writes).filter(|(_, writes)| **writes) {
        slice.buffer = BufferId::new(0);
    }
    if let Op::Collect(collect) = &mut bare {
        (collect.id, collect.why) = (0, "".into());
    }
    bare
}
