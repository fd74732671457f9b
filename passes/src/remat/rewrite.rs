//! Applies decisions: values are recomputed, or copied to the host and back.

use std::collections::BTreeMap;

use plan::{BufferId, Op, Slice, Space};
use program::{Instruction, Origin, RankProgram, Turn};

use super::facts::Facts;
use super::state::Decisions;

struct Rewrite<'a> {
    facts: &'a Facts,
    decisions: &'a Decisions,
    /// By buffer: the copy that holds its content later.
    back: Vec<Option<BufferId>>,
    /// The program with its new buffers; its instructions come last.
    program: RankProgram,
    out: Vec<Instruction>,
}

pub fn rewrite(old: &RankProgram, facts: &Facts, decisions: &Decisions) -> RankProgram {
    let mut program = old.clone();
    for (buffer, _) in program.buffers.iter_mut().zip(&decisions.away).filter(|(_, away)| **away) {
        buffer.space = Space::Host;
    }
    let (back, out) = (vec![None; facts.bytes.len()], Vec::with_capacity(old.instructions.len()));
    let mut rewrite = Rewrite { facts, decisions, back, program, out };
    // What stands before each instruction: copies from the host, then what is done again, in the order of the program.
    let mut asked: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    let mut again: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    let mut leaves: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for b in facts.persistent..facts.bytes.len() {
        if let Some((at, maker)) = decisions.host(b).zip(facts.maker[b]) {
            asked.entry(facts.asked(at)).or_default().push(b);
            leaves.entry(maker).or_default().push(b);
        }
    }
    for i in 0..facts.len() {
        if let Some(at) = decisions.again(i) {
            again.entry(at).or_default().push(i);
        }
    }
    let mut turns: Vec<Turn> = vec![];
    let mut begins = old.turns.iter().peekable();
    let mut hosts: Vec<Option<BufferId>> = vec![None; facts.bytes.len()];
    for (i, instruction) in old.instructions.iter().enumerate() {
        while let Some(turn) = begins.next_if(|turn| turn.at <= i) {
            turns.push(Turn { at: rewrite.out.len(), ..*turn });
        }
        for &b in asked.get(&(i as u32)).into_iter().flatten() {
            let Some(from) = hosts[b] else { continue };
            let maker = facts.maker[b].map_or(instruction.origin, |maker| old.instructions[maker as usize].origin);
            let origin = Origin { place: maker.place, ..instruction.origin };
            let to = rewrite.copy(b, Space::Device);
            rewrite.back[b] = Some(to);
            rewrite.transfer(from, to, origin);
        }
        for &maker in again.get(&(i as u32)).into_iter().flatten() {
            rewrite.repeat(maker, &old.instructions[maker], i as u32, instruction.origin);
        }
        let mut instruction = instruction.clone();
        rewrite.rename(&mut instruction.op, i as u32);
        let origin = instruction.origin;
        rewrite.out.push(instruction);
        for &b in leaves.get(&(i as u32)).into_iter().flatten() {
            let to = rewrite.copy(b, Space::Host);
            hosts[b] = Some(to);
            rewrite.transfer(BufferId::new(b), to, origin);
        }
    }
    turns.extend(begins.map(|turn| Turn { at: rewrite.out.len(), ..*turn }));
    let Rewrite { mut program, out, .. } = rewrite;
    (program.instructions, program.turns) = (out, turns);
    program
}

impl Rewrite<'_> {
    fn copy(&mut self, buffer: usize, space: Space) -> BufferId {
        let mut copy = self.program.buffers[buffer].clone();
        copy.space = space;
        self.program.add_buffer(copy)
    }

    fn transfer(&mut self, from: BufferId, to: BufferId, origin: Origin) {
        let bytes = self.program.buffer(from).bytes;
        self.out.push(Instruction::copy(Slice::whole(from, bytes), Slice::whole(to, bytes), origin));
    }

    /// Replaces buffers by their copies, for an instruction at this index.
    fn rename(&self, op: &mut Op, at: u32) {
        for slice in op.slices_mut() {
            let moved = self.decisions.moves(self.facts, slice.buffer.index()).is_some_and(|back| back <= at);
            slice.buffer = self.back[slice.buffer.index()].filter(|_| moved).unwrap_or(slice.buffer);
        }
    }

    /// Executes an instruction again, into new buffers, for what reads them.
    fn repeat(&mut self, maker: usize, instruction: &Instruction, at: u32, reader: Origin) {
        let mut instruction = instruction.clone();
        let Origin { place, site, .. } = instruction.origin;
        instruction.origin = Origin { place, site, ..reader };
        self.rename(&mut instruction.op, at);
        for b in self.facts.writes(maker) {
            self.back[b.index()] = Some(self.copy(b.index(), Space::Device));
        }
        for slice in instruction.op.slices_mut() {
            if self.facts.maker.get(slice.buffer.index()) == Some(&Some(maker as u32)) {
                slice.buffer = self.back[slice.buffer.index()].unwrap_or(slice.buffer);
            }
        }
        if let Op::Collect(collect) = &mut instruction.op {
            collect.id = self.program.next_collective();
        }
        self.out.push(instruction);
    }
}
