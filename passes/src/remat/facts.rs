//! Facts about a program's values that decisions depend on: their writers, readers, live ranges and costs.

use std::collections::BTreeMap;
use std::ops::Range;

use plan::{Buffer, BufferId, BufferKind, Life, Op, ResidencyId};
use program::{DefUse, Instruction, RankProgram, is_message};

use crate::prefetch::params_only;
use crate::times::Times;

/// Points in time are indices of instructions.
pub struct Facts {
    pub def_use: DefUse,
    /// By buffer: the only instruction that writes it.
    pub maker: Vec<Option<u32>>,
    /// By buffer: whether it is live at the end of the program.
    outlasts: Vec<bool>,
    pub bytes: Vec<u64>,
    /// By buffer: whether it holds moments or master weights, from step to step.
    pub is_moment: Vec<bool>,
    /// By buffer: whether it is never live for long: each block gathers it for itself, or it is the new value of a persistent
    /// buffer.
    pub is_passing: Vec<bool>,
    /// By instruction: whether it may be executed again.
    pub can_repeat: Vec<bool>,
    /// By instruction: whether it is a message. Compute waits for a message at its first reader, never earlier.
    pub is_message: Vec<bool>,
    pub seconds: Vec<f64>,
    /// By instruction: its turn. By turn: where it begins.
    pub turn: Vec<u32>,
    pub begins: Vec<u32>,
    pub persistent: usize,
}

impl Facts {
    pub fn new(program: &RankProgram, alignment: u64, times: &mut Times<'_>) -> Self {
        let (persistent, instructions, count) = (program.persistent, &program.instructions, program.buffers.len());
        let def_use = program.def_use();
        let params_only = params_only(program, &def_use);
        let moment = |(id, buffer): (usize, &plan::Buffer)| id < persistent && buffer.kind == BufferKind::Optimizer;
        let mut facts = Self {
            maker: (0..count).map(|b| def_use.maker(BufferId::new(b)).map(|i| i as u32)).collect(),
            outlasts: vec![false; count],
            bytes: program.buffers.iter().map(|b| b.bytes.next_multiple_of(alignment)).collect(),
            is_moment: program.buffers.iter().enumerate().map(moment).collect(),
            is_passing: vec![false; count],
            can_repeat: vec![],
            is_message: instructions.iter().map(|i| is_message(&i.op)).collect(),
            seconds: times.kernels(program),
            turn: vec![0; instructions.len()],
            begins: vec![],
            persistent,
            def_use,
        };
        for (i, params_only) in params_only.iter().enumerate() {
            for slice in facts.def_use.writes(i) {
                facts.is_passing[slice.buffer.index()] = *params_only;
            }
        }
        for update in &program.updates {
            facts.outlasts[update.value.buffer.index()] = true;
            facts.is_passing[update.value.buffer.index()] = true;
        }
        for (i, instruction) in instructions.iter().enumerate() {
            let fresh = |b: BufferId| {
                let is_made_here = b.index() >= persistent && facts.maker[b.index()] == Some(i as u32);
                is_made_here && !facts.outlasts[b.index()]
            };
            let apart = |b: BufferId| fresh(b) && facts.def_use.reads(i).all(|s| s.buffer != b);
            let makes = facts.writes(i).next().is_some() && facts.writes(i).all(apart);
            facts.can_repeat.push(makes && !params_only[i] && repeats(instruction));
            if let Op::Collect(collect) = &instruction.op {
                facts.seconds[i] = times.exchange(&**collect);
            }
        }
        let begins = program.turns.iter().map(|turn| turn.at as u32);
        facts.begins = begins.filter(|at| (*at as usize) < instructions.len()).collect();
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

    /// Bytes of persistent buffers that stay on the device whatever is decided.
    pub fn fixed(&self, program: &RankProgram) -> u64 {
        let stays = |b: &usize| program.held[*b] && !self.is_moment[*b];
        device_bytes((0..self.persistent).filter(stays).map(|b| (&program.buffers[b], self.bytes[b])))
    }

    /// Number of instructions.
    pub fn len(&self) -> usize {
        self.def_use.len()
    }

    /// The buffers that an instruction writes, each once.
    pub fn writes(&self, i: usize) -> impl Iterator<Item = BufferId> {
        let writes = self.def_use.writes(i).map(|s| s.buffer);
        let earlier = writes.clone();
        writes.enumerate().filter(move |(k, b)| !earlier.clone().take(*k).any(|e| e == *b)).map(|(_, b)| b)
    }

    /// The instructions that touch a buffer, ascending; and the end of the program, if it is live there.
    pub fn uses(&self, buffer: usize) -> impl Iterator<Item = u32> + Clone {
        let end = self.outlasts[buffer].then_some(self.len() as u32);
        self.def_use.users(BufferId::new(buffer)).iter().map(|user| user.instruction).chain(end)
    }

    pub fn readers(&self, buffer: BufferId) -> impl Iterator<Item = usize> + Clone {
        self.def_use.readers(buffer)
    }

    pub fn turn_of(&self, at: u32) -> u32 {
        self.turn.get(at as usize).or(self.turn.last()).copied().unwrap_or(0)
    }

    /// The instructions of a turn.
    pub fn turn(&self, turn: u32) -> Range<usize> {
        let begin = |turn: u32| self.begins.get(turn as usize).map_or(self.len(), |at| *at as usize);
        begin(turn)..begin(turn + 1)
    }

    /// The longest gap between two uses of a buffer.
    pub fn gap(&self, buffer: usize) -> Option<(u32, u32)> {
        let gaps = self.uses(buffer).zip(self.uses(buffer).skip(1));
        let (from, to) = gaps.max_by_key(|(from, to)| (to - from, *from))?;
        // Within a turn values do not wait; unless there is no other.
        let apart = self.turn_of(from) != self.turn_of(to) || self.begins.len() <= 2;
        (apart && to as usize != self.len() && to - from > 1).then_some((from, to))
    }

    /// The instruction before which a copy from the host is issued, so that it arrives for another instruction.
    pub fn asked(&self, at: u32) -> u32 {
        self.turn(self.turn_of(at).saturating_sub(1)).start as u32
    }

    /// Whether a value is on the host for at least one turn between its writer and the copy back.
    pub fn can_wait(&self, maker: u32, at: u32) -> bool {
        self.turn_of(maker) + 3 <= self.turn_of(at)
    }
}

/// What persistent buffers take on the device: all that always lie there, and the largest residency.
pub fn device_bytes<'p>(buffers: impl Iterator<Item = (&'p Buffer, u64)>) -> u64 {
    let mut residencies: BTreeMap<ResidencyId, u64> = BTreeMap::new();
    let mut always = 0;
    for (buffer, bytes) in buffers {
        match buffer.life {
            Life::Resident(residency) => *residencies.entry(residency).or_default() += bytes,
            _ => always += bytes,
        }
    }
    always + residencies.into_values().max().unwrap_or(0)
}

fn repeats(instruction: &Instruction) -> bool {
    match &instruction.op {
        Op::Launch(_) => true,
        // Ranks of one stage do it together.
        Op::Collect(collect) => !is_message(&instruction.op) && !collect.group.iter().any(|axis| *axis == "pp"),
        _ => false,
    }
}
