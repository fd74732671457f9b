//! What can be done ahead: collectives that depend on parameters and state alone, such as gathers of parameters that are
//! cut, and what leads to them.

use plan::{Buffer, BufferId, Instruction, Kernel, Op, Slice};

use super::lanes::is_message;
use super::unroll::Unrolled;
use super::update::{accesses, slices_mut};
use rustc_hash::{FxHashMap, FxHashSet};

/// By instruction: whether it is a collective that depends on persistent buffers alone, or something that only leads to
/// such collectives.
pub fn find(instructions: &[Instruction], kernels: &[Kernel], persistent: usize, count: usize) -> Vec<bool> {
    // By buffer that anything was written to: whether all of it depends on persistent buffers alone.
    let mut known: Vec<Option<bool>> = (0..count).map(|id| (id < persistent).then_some(true)).collect();
    let mut able = Vec::with_capacity(instructions.len());
    for instruction in instructions {
        let touches = instruction.op.touches(|k| accesses(kernels, k));
        let kind =
            matches!(instruction.op, Op::Launch(_) | Op::Collect(_) | Op::Copy { .. }) && !is_message(&instruction.op);
        let able_now = kind && touches.iter().all(|(s, a)| !a.reads() || known[s.buffer.index()] == Some(true));
        for (slice, _) in touches.iter().filter(|(_, a)| a.writes()) {
            let id = slice.buffer.index();
            known[id] = Some(able_now && id >= persistent && known[id].unwrap_or(true));
        }
        able.push(able_now);
    }
    let mut wanted = vec![false; count];
    for (instruction, able) in instructions.iter().zip(&mut able).rev() {
        let touches = instruction.op.touches(|k| accesses(kernels, k));
        let leads = || touches.iter().any(|(s, a)| a.writes() && wanted[s.buffer.index()]);
        *able = *able && (matches!(instruction.op, Op::Collect(_)) || leads());
        if *able {
            for (slice, _) in touches.iter().filter(|(s, a)| a.reads() && s.buffer.index() >= persistent) {
                wanted[slice.buffer.index()] = true;
            }
        }
    }
    able
}

/// Does what can be done ahead anew in each block that reads of it, once and right before the first reader, so that
/// what is gathered for one block never lives on to another. What the program does before its micro-batches is done once.
pub fn in_each_block(unrolled: Unrolled, kernels: &[Kernel], persistent: usize, collects: &mut u32) -> Unrolled {
    let Unrolled { buffers, instructions, mut turns, updates, once } = unrolled;
    let ahead = find(&instructions, kernels, persistent, persistent + buffers.len());
    let mut makers: FxHashMap<BufferId, Vec<usize>> = FxHashMap::default();
    for (i, instruction) in instructions.iter().enumerate().filter(|(i, _)| ahead[*i]) {
        for (slice, _) in instruction.op.slices(|k| accesses(kernels, k)).filter(|(_, a)| a.writes()) {
            makers.entry(slice.buffer).or_default().push(i);
        }
    }
    let mut makes = Makes {
        instructions: &instructions,
        kernels,
        persistent,
        makers,
        collects,
        buffers,
        out: Vec::with_capacity(instructions.len()),
        used: FxHashSet::default(),
        once: &once,
        step: Block::default(),
        block: Block::default(),
    };
    let mut begins = turns.iter_mut().peekable();
    for (i, instruction) in instructions.iter().enumerate() {
        while let Some(turn) = begins.next_if(|turn| turn.at <= i) {
            turn.at = makes.out.len();
            if turn.is_block {
                makes.block = Block::default();
            }
        }
        if !ahead[i] {
            let mut instruction = instruction.clone();
            slices_mut(&mut instruction.op).into_iter().for_each(|slice| *slice = makes.slice(*slice));
            makes.out.push(instruction);
        }
    }
    begins.for_each(|turn| turn.at = makes.out.len());
    let updates = updates.into_iter().map(|(value, home)| (makes.slice(value), home)).collect();
    let Makes { buffers, out: instructions, .. } = makes;
    Unrolled { buffers, instructions, turns, updates, once }
}

struct Makes<'a> {
    instructions: &'a [Instruction],
    kernels: &'a [Kernel],
    persistent: usize,
    /// By buffer: the instructions that write it, if they can be done ahead.
    makers: FxHashMap<BufferId, Vec<usize>>,
    /// Number of collectives of the plan so far.
    collects: &'a mut u32,
    buffers: Vec<Buffer>,
    out: Vec<Instruction>,
    /// What was done in any block.
    used: FxHashSet<usize>,
    /// Buffers that are written once a step.
    once: &'a FxHashSet<BufferId>,
    step: Block,
    block: Block,
}

/// What was done ahead in a block, or in the whole step.
#[derive(Default)]
struct Block {
    done: FxHashSet<usize>,
    /// Buffers that hold here what others hold in the order that was.
    instead: FxHashMap<BufferId, BufferId>,
    /// By what they read: instructions without what they write, and that.
    made: FxHashMap<Vec<Slice>, Vec<(Op, Vec<BufferId>)>>,
}

impl Makes<'_> {
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

    /// What writes a buffer ahead, the last of it first, and whether once a step.
    fn makers_of(&self, buffer: BufferId) -> Vec<(usize, bool)> {
        let once = self.once.contains(&buffer);
        self.makers.get(&buffer).into_iter().flatten().rev().map(|&maker| (maker, once)).collect()
    }

    fn makers_of_operands(&self, maker: usize) -> Vec<(usize, bool)> {
        let touches = self.instructions[maker].op.touches(|k| accesses(self.kernels, k));
        let operands = touches.iter().rev().filter(|(_, access)| !access.writes());
        operands.flat_map(|(slice, _)| self.makers_of(slice.buffer)).collect()
    }

    /// Issues a maker whose operands are made.
    fn make(&mut self, maker: usize, once: bool) {
        let mut instruction = self.instructions[maker].clone();
        let writes: Vec<bool> =
            instruction.op.touches(|k| accesses(self.kernels, k)).iter().map(|(_, a)| a.writes()).collect();
        let (mut reads, mut written) = (vec![], vec![]);
        for (slice, writes) in slices_mut(&mut instruction.op).into_iter().zip(&writes) {
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
                collect.id = *self.collects;
                *self.collects += 1;
            }
            for &old in &written {
                self.block.instead.entry(old).or_insert_with(|| {
                    self.buffers.push(self.buffers[old.index() - self.persistent].clone());
                    BufferId::new(self.persistent + self.buffers.len() - 1)
                });
            }
        }
        for (slice, _) in slices_mut(&mut instruction.op).into_iter().zip(&writes).filter(|(_, writes)| **writes) {
            slice.buffer = self.block(once).instead.get(&slice.buffer).copied().unwrap_or(slice.buffer);
        }
        let written = written.iter().map(|old| self.block(once).instead.get(old).copied().unwrap_or(*old)).collect();
        self.block(once).made.entry(reads).or_default().push((bare, written));
        self.out.push(instruction);
    }
}

/// What two instructions that do the same have in common.
fn bare(op: &Op, writes: &[bool]) -> Op {
    let mut bare = op.clone();
    for (slice, _) in slices_mut(&mut bare).into_iter().zip(writes).filter(|(_, writes)| **writes) {
        slice.buffer = BufferId::new(0);
    }
    if let Op::Collect(collect) = &mut bare {
        (collect.id, collect.why) = (0, "".into());
    }
    bare
}
