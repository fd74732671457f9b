//! Carries decisions out: what is not kept is made again, or copied to the host and back.

use std::collections::BTreeMap;

use plan::{Buffer, BufferId, Instruction, LaneId, Op, Slice, Space};

use super::super::unroll::{Turn, Unrolled};
use super::super::update::slices_mut;
use super::facts::Facts;
use super::state::Decisions;

struct Rewrite<'a> {
    facts: &'a Facts,
    decisions: &'a Decisions,
    /// By buffer: what holds its content once it is back.
    back: Vec<Option<BufferId>>,
    buffers: Vec<Buffer>,
    out: Vec<Instruction>,
    /// Number of collectives of the plan so far.
    collects: &'a mut u32,
}

pub fn rewrite(unrolled: &Unrolled, facts: &Facts, decisions: &Decisions, collects: &mut u32) -> Unrolled {
    let mut rewrite = Rewrite {
        facts,
        decisions,
        back: vec![None; facts.bytes.len()],
        buffers: unrolled.buffers.clone(),
        out: Vec::with_capacity(unrolled.instructions.len()),
        collects,
    };
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
    let mut begins = unrolled.turns.iter().peekable();
    let mut hosts: Vec<Option<BufferId>> = vec![None; facts.bytes.len()];
    for (i, instruction) in unrolled.instructions.iter().enumerate() {
        while let Some(turn) = begins.next_if(|turn| turn.at <= i) {
            turns.push(Turn { at: rewrite.out.len(), ..*turn });
        }
        for &b in asked.get(&(i as u32)).into_iter().flatten() {
            let Some(from) = hosts[b] else { continue };
            let place = facts.maker[b].map_or(instruction.place, |maker| unrolled.instructions[maker as usize].place);
            let to = rewrite.copy(b, Space::Device);
            rewrite.back[b] = Some(to);
            rewrite.transfer((from, to), rewrite.buffers[b - facts.persistent].bytes, place);
        }
        for &maker in again.get(&(i as u32)).into_iter().flatten() {
            rewrite.repeat(maker, &unrolled.instructions[maker], i as u32);
        }
        let mut instruction = instruction.clone();
        rewrite.rename(&mut instruction.op, i as u32);
        let place = instruction.place;
        rewrite.out.push(instruction);
        for &b in leaves.get(&(i as u32)).into_iter().flatten() {
            let to = rewrite.copy(b, Space::Host);
            hosts[b] = Some(to);
            rewrite.transfer((BufferId::new(b), to), rewrite.buffers[b - facts.persistent].bytes, place);
        }
    }
    turns.extend(begins.map(|turn| Turn { at: rewrite.out.len(), ..*turn }));
    let Rewrite { buffers, out: instructions, .. } = rewrite;
    Unrolled { buffers, instructions, turns, updates: unrolled.updates.clone(), once: unrolled.once.clone() }
}

impl Rewrite<'_> {
    fn copy(&mut self, buffer: usize, space: Space) -> BufferId {
        let of = self.buffers[buffer - self.facts.persistent].clone();
        self.buffers.push(Buffer { space, ..of });
        BufferId::new(self.facts.persistent + self.buffers.len() - 1)
    }

    fn transfer(&mut self, (from, to): (BufferId, BufferId), bytes: u64, place: plan::PlaceId) {
        let (from, to) = (Slice::whole(from, bytes), Slice::whole(to, bytes));
        self.out.push(Instruction { lane: LaneId::new(0), place, op: Op::Copy { from, to } });
    }

    /// The slice of what holds the content at that moment.
    fn rename(&self, op: &mut Op, at: u32) {
        for slice in slices_mut(op) {
            let moved = self.decisions.moves(self.facts, slice.buffer.index()).is_some_and(|back| back <= at);
            slice.buffer = self.back[slice.buffer.index()].filter(|_| moved).unwrap_or(slice.buffer);
        }
    }

    /// The same once more, into buffers of its own.
    fn repeat(&mut self, maker: usize, instruction: &Instruction, at: u32) {
        let mut instruction = instruction.clone();
        self.rename(&mut instruction.op, at);
        for &b in &self.facts.writes[maker] {
            self.back[b as usize] = Some(self.copy(b as usize, Space::Device));
        }
        for slice in slices_mut(&mut instruction.op) {
            if self.facts.maker.get(slice.buffer.index()) == Some(&Some(maker as u32)) {
                slice.buffer = self.back[slice.buffer.index()].unwrap_or(slice.buffer);
            }
        }
        if let Op::Collect(collect) = &mut instruction.op {
            collect.id = *self.collects;
            *self.collects += 1;
        }
        self.out.push(instruction);
    }
}
