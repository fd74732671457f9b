//! What a program that was written out says of its values: who makes, reads and holds them, and how long that takes.

use std::ops::Range;

use plan::{BufferKind, Instruction, Op};
use smallvec::SmallVec;

use super::super::ahead;
use super::super::lanes::is_message;
use super::super::unroll::Unrolled;
use super::super::update::accesses;
use super::Surroundings;

/// Buffers count the persistent ones first; moments are indices of instructions.
pub struct Facts {
    /// By instruction: the buffers that it reads and writes.
    pub reads: Vec<SmallVec<[u32; 6]>>,
    pub writes: Vec<SmallVec<[u32; 3]>>,
    /// By buffer: when it is touched, ascending; at the end of all, if it must be there then.
    pub uses: Vec<SmallVec<[u32; 4]>>,
    /// By buffer: who reads it.
    pub readers: Vec<SmallVec<[u32; 4]>>,
    /// By buffer: the only instruction that writes it.
    pub maker: Vec<Option<u32>>,
    pub bytes: Vec<u64>,
    /// By buffer: whether it holds moments or master weights, from step to step.
    pub is_moment: Vec<bool>,
    /// By buffer: whether it takes no room of its own for long: each block makes it for itself, or it is the new content of
    /// a persistent buffer.
    pub is_passing: Vec<bool>,
    /// By instruction: whether it could be done once more.
    pub can_repeat: Vec<bool>,
    /// By instruction: whether it takes a message, for which compute waits where it is read and no sooner.
    pub is_message: Vec<bool>,
    pub seconds: Vec<f64>,
    /// By instruction: its turn. By turn: where it begins.
    pub turn: Vec<u32>,
    pub begins: Vec<u32>,
    pub persistent: usize,
}

impl Facts {
    pub fn new(unrolled: &Unrolled, around: &mut Surroundings<'_, '_>) -> Self {
        let (persistent, instructions) = (around.persistent.len(), &unrolled.instructions);
        let count = persistent + unrolled.buffers.len();
        let ahead = ahead::find(instructions, around.kernels, persistent, count);
        let mut facts = Self {
            reads: Vec::with_capacity(instructions.len()),
            writes: Vec::with_capacity(instructions.len()),
            uses: vec![SmallVec::new(); count],
            readers: vec![SmallVec::new(); count],
            maker: vec![None; count],
            bytes: around
                .persistent
                .iter()
                .chain(&unrolled.buffers)
                .map(|b| b.bytes.next_multiple_of(around.alignment))
                .collect(),
            is_moment: around.persistent.iter().map(|b| b.kind == BufferKind::Optimizer).collect(),
            is_passing: vec![false; count],
            can_repeat: vec![],
            is_message: instructions.iter().map(|i| is_message(&i.op)).collect(),
            seconds: around.times.seconds(unrolled, around.persistent),
            turn: vec![0; instructions.len()],
            begins: vec![],
            persistent,
        };
        facts.is_moment.resize(count, false);
        let mut written = vec![0u32; count];
        for (i, instruction) in instructions.iter().enumerate() {
            let (mut reads, mut writes): (SmallVec<[u32; 6]>, SmallVec<[u32; 3]>) = Default::default();
            for (slice, access) in instruction.op.touches(|k| accesses(around.kernels, k)) {
                let id = slice.buffer.index();
                if facts.uses[id].last() != Some(&(i as u32)) {
                    facts.uses[id].push(i as u32);
                }
                if access.reads() && !reads.contains(&(id as u32)) {
                    reads.push(id as u32);
                    facts.readers[id].push(i as u32);
                }
                if access.writes() && !writes.contains(&(id as u32)) {
                    writes.push(id as u32);
                    written[id] += 1;
                    facts.maker[id] = Some(i as u32).filter(|_| written[id] == 1);
                    facts.is_passing[id] = ahead[i];
                }
            }
            facts.reads.push(reads);
            facts.writes.push(writes);
        }
        let mut kept = vec![false; count];
        for (value, _) in &unrolled.updates {
            kept[value.buffer.index()] = true;
            facts.uses[value.buffer.index()].push(instructions.len() as u32);
            facts.is_passing[value.buffer.index()] = true;
        }
        for (i, instruction) in instructions.iter().enumerate() {
            let fresh =
                |b: &u32| *b as usize >= persistent && facts.maker[*b as usize] == Some(i as u32) && !kept[*b as usize];
            let apart = facts.writes[i].iter().all(|b| fresh(b) && !facts.reads[i].contains(b));
            facts.can_repeat.push(apart && !ahead[i] && !facts.writes[i].is_empty() && repeats(instruction));
            if let Op::Collect(collect) = &instruction.op {
                facts.seconds[i] = around.times.exchange(collect);
            }
        }
        facts.begins =
            unrolled.turns.iter().map(|turn| turn.at as u32).filter(|at| (*at as usize) < instructions.len()).collect();
        facts.begins.dedup();
        let mut turn = 0;
        for i in 0..instructions.len() {
            while facts.begins.get(turn + 1).is_some_and(|begin| *begin as usize <= i) {
                turn += 1;
            }
            facts.turn[i] = turn as u32;
        }
        facts
    }

    /// Number of instructions.
    pub fn len(&self) -> usize {
        self.reads.len()
    }

    pub fn turn_of(&self, at: u32) -> u32 {
        self.turn.get(at as usize).or(self.turn.last()).copied().unwrap_or(0)
    }

    /// The instructions of a turn.
    pub fn turn(&self, turn: u32) -> Range<usize> {
        let begin = |turn: u32| self.begins.get(turn as usize).map_or(self.len(), |at| *at as usize);
        begin(turn)..begin(turn + 1)
    }

    /// When nobody touches a buffer for the longest: from the last use to the next one.
    pub fn gap(&self, buffer: usize) -> Option<(u32, u32)> {
        let gaps = self.uses[buffer].windows(2).map(|pair| (pair[0], pair[1]));
        let (from, to) = gaps.max_by_key(|(from, to)| (to - from, *from))?;
        // Within a turn values do not wait; unless there is no other.
        let apart = self.turn_of(from) != self.turn_of(to) || self.begins.len() <= 2;
        (apart && to as usize != self.len() && to - from > 1).then_some((from, to))
    }

    /// Where what comes from the host for an instruction is asked for.
    pub fn asked(&self, at: u32) -> u32 {
        self.turn(self.turn_of(at).saturating_sub(1)).start as u32
    }

    /// Whether a value that this makes would be in the host's memory for at least a turn before it is asked for again.
    pub fn can_wait(&self, maker: u32, at: u32) -> bool {
        self.turn_of(maker) + 3 <= self.turn_of(at)
    }
}

fn repeats(instruction: &Instruction) -> bool {
    match &instruction.op {
        Op::Launch(_) => true,
        // Ranks of one stage do it together.
        Op::Collect(collect) => !is_message(&instruction.op) && !collect.group.iter().any(|axis| *axis == "pp"),
        _ => false,
    }
}
