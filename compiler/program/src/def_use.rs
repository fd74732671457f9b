//! Who reads and writes what: the one index that passes ask instead of walking over instructions themselves.

use plan::{Access, BufferId, Slice};

use crate::RankProgram;

/// Of a program as it was when the index was made; indices are those of its instructions then.
pub struct DefUse {
    touches: Vec<(Slice, Access)>,
    /// By instruction: where its touches begin; one more at the end.
    begins: Vec<u32>,
    users: Vec<User>,
    /// By buffer: where its users begin; one more at the end.
    first: Vec<u32>,
}

/// An instruction that touches a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    pub instruction: u32,
    pub reads: bool,
    pub writes: bool,
}

impl DefUse {
    pub fn of(program: &RankProgram) -> Self {
        let (mut touches, mut begins) = (vec![], Vec::with_capacity(program.instructions.len() + 1));
        begins.push(0);
        let mut first = vec![0u32; program.buffers.len() + 1];
        for instruction in &program.instructions {
            for (slice, access) in program.touches(instruction) {
                first[slice.buffer.index() + 1] += 1;
                touches.push((slice, access));
            }
            begins.push(touches.len() as u32);
        }
        for id in 0..program.buffers.len() {
            first[id + 1] += first[id];
        }
        // What one instruction touches twice is counted twice here, and taken out below.
        let mut users = vec![User { instruction: u32::MAX, reads: false, writes: false }; touches.len()];
        let mut next = first.clone();
        for i in 0..program.instructions.len() {
            for (slice, access) in &touches[begins[i] as usize..begins[i + 1] as usize] {
                let (from, at) = (first[slice.buffer.index()], &mut next[slice.buffer.index()]);
                if *at > from && users[*at as usize - 1].instruction == i as u32 {
                    *at -= 1;
                }
                let user = &mut users[*at as usize];
                user.instruction = i as u32;
                user.reads |= access.reads();
                user.writes |= access.writes();
                *at += 1;
            }
        }
        let mut kept = 0;
        for id in 0..program.buffers.len() {
            let (from, to) = (first[id] as usize, next[id] as usize);
            first[id] = kept as u32;
            users.copy_within(from..to, kept);
            kept += to - from;
        }
        first[program.buffers.len()] = kept as u32;
        users.truncate(kept);
        Self { touches, begins, users, first }
    }

    /// Number of instructions.
    pub fn len(&self) -> usize {
        self.begins.len() - 1
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of buffers.
    pub fn buffers(&self) -> usize {
        self.first.len() - 1
    }

    /// What an instruction touches, in the order of its operands.
    pub fn touches(&self, instruction: usize) -> &[(Slice, Access)] {
        &self.touches[self.begins[instruction] as usize..self.begins[instruction + 1] as usize]
    }

    pub fn reads(&self, instruction: usize) -> impl Iterator<Item = Slice> + Clone {
        self.touches(instruction).iter().filter(|(_, access)| access.reads()).map(|(slice, _)| *slice)
    }

    pub fn writes(&self, instruction: usize) -> impl Iterator<Item = Slice> + Clone {
        self.touches(instruction).iter().filter(|(_, access)| access.writes()).map(|(slice, _)| *slice)
    }

    /// The instructions that touch a buffer, ascending.
    pub fn users(&self, buffer: BufferId) -> &[User] {
        &self.users[self.first[buffer.index()] as usize..self.first[buffer.index() + 1] as usize]
    }

    pub fn readers(&self, buffer: BufferId) -> impl DoubleEndedIterator<Item = usize> + Clone {
        self.users(buffer).iter().filter(|user| user.reads).map(|user| user.instruction as usize)
    }

    pub fn writers(&self, buffer: BufferId) -> impl DoubleEndedIterator<Item = usize> + Clone {
        self.users(buffer).iter().filter(|user| user.writes).map(|user| user.instruction as usize)
    }

    /// The only instruction that writes a buffer.
    pub fn maker(&self, buffer: BufferId) -> Option<usize> {
        let mut writers = self.writers(buffer);
        writers.next().filter(|_| writers.next().is_none())
    }
}
