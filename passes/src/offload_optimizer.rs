//! `offload-optimizer`: whatever touches a persistent buffer in the host's memory works on a copy on the device, which comes
//! in time and goes back at once.
//!
//! Copies share a few slots, so that no more of them are on the device than travel or are worked on. Runs on instructions in
//! their final order.

use plan::{Access, Buffer, BufferId, BufferKind, Life, Op, Slice, Space};
use program::{Instruction, RankProgram, Turn};
use serde::{Deserialize, Serialize};

use crate::RankPass;
use crate::ranks::RankContext;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OffloadOptimizer {}

impl RankPass for OffloadOptimizer {
    fn run(&self, program: &mut RankProgram, cx: &mut RankContext<'_>) {
        insert_copies(program, cx.alignment);
    }
}

/// One is on its way in, one is worked on, one is on its way out.
const SLOTS: usize = 3;

/// An instruction that touches buffers in the host's memory.
struct HostAccess {
    at: usize,
    copies: Vec<HostCopy>,
    bytes: u64,
}

struct HostCopy {
    home: BufferId,
    /// Where the copy lies in its slot.
    offset: u64,
    bytes: u64,
    is_read: bool,
    is_written: bool,
}

pub fn insert_copies(program: &mut RankProgram, alignment: u64) {
    let accesses = host_accesses(program, alignment);
    let Some(largest) = accesses.iter().map(|access| access.bytes).max() else { return };
    let slots: Vec<BufferId> = (0..SLOTS.min(accesses.len()))
        .map(|slot| {
            let name = format!("optimiser slot {slot}").into();
            let life = Life::Span { first: 0, last: 0 };
            let (kind, space) = (BufferKind::Workspace, Space::Device);
            program.add_buffer(Buffer { name, kind, space, offset: 0, bytes: largest, ty: None, life })
        })
        .collect();
    let turns = std::mem::take(&mut program.turns);
    // By access: before which instruction its copies are asked for.
    let begin = |at: usize| {
        let turn = turns.partition_point(|turn| turn.at <= at);
        turn.checked_sub(2).map_or(0, |before| turns[before].at)
    };
    let asked = accesses.iter().enumerate().map(|(g, access)| {
        let free = g.checked_sub(SLOTS - 1).map_or(0, |before| accesses[before].at + 1);
        begin(access.at).max(free).min(access.at)
    });
    let asked: Vec<usize> = asked.collect();
    let old = std::mem::take(&mut program.instructions);
    let mut out: Vec<Instruction> = Vec::with_capacity(old.len() + 4 * accesses.len());
    let mut placed: Vec<Turn> = vec![];
    let (mut begins, mut next, mut here) = (turns.iter().peekable(), 0, 0);
    for (i, mut instruction) in old.into_iter().enumerate() {
        while let Some(turn) = begins.next_if(|turn| turn.at <= i) {
            placed.push(Turn { at: out.len(), ..*turn });
        }
        while let Some(access) = accesses.get(next).filter(|_| asked[next] <= i) {
            let slot = slots[next % SLOTS];
            let copies = access.copies.iter().filter(|copy| copy.is_read);
            out.extend(copies.map(|copy| Instruction::copy(copy.at_home(), copy.in_slot(slot), instruction.origin)));
            next += 1;
        }
        let Some(access) = accesses.get(here).filter(|access| access.at == i) else {
            out.push(instruction);
            continue;
        };
        let slot = slots[here % SLOTS];
        for slice in instruction.op.slices_mut() {
            if let Some(copy) = access.copies.iter().find(|copy| copy.home == slice.buffer) {
                *slice = Slice { buffer: slot, offset: copy.offset + slice.offset, ..*slice };
            }
        }
        let origin = instruction.origin;
        out.push(instruction);
        let copies = access.copies.iter().filter(|copy| copy.is_written);
        out.extend(copies.map(|copy| Instruction::copy(copy.in_slot(slot), copy.at_home(), origin)));
        here += 1;
    }
    placed.extend(begins.map(|turn| Turn { at: out.len(), ..*turn }));
    program.instructions = out;
    program.turns = placed;
}

impl HostCopy {
    fn at_home(&self) -> Slice {
        Slice::whole(self.home, self.bytes)
    }

    fn in_slot(&self, buffer: BufferId) -> Slice {
        Slice { buffer, offset: self.offset, bytes: self.bytes }
    }
}

fn host_accesses(program: &RankProgram, alignment: u64) -> Vec<HostAccess> {
    let mut accesses = vec![];
    if !program.buffers[..program.persistent].iter().any(Buffer::on_host) {
        return accesses;
    }
    // A copy is one already.
    for (at, instruction) in program.instructions.iter().enumerate().filter(|(_, i)| !matches!(i.op, Op::Copy { .. })) {
        let mut here = HostAccess { at, copies: vec![], bytes: 0 };
        for (slice, access) in program.touches(instruction) {
            let home = program.buffer(slice.buffer);
            if !program.is_persistent(slice.buffer) || !home.on_host() {
                continue;
            }
            let (reads, writes) = (access.reads(), access.writes());
            match here.copies.iter_mut().find(|copy| copy.home == slice.buffer) {
                Some(copy) => (copy.is_read, copy.is_written) = (copy.is_read || reads, copy.is_written || writes),
                None => {
                    // A part that is written leaves the rest as it was.
                    let whole = access == Access::Write && slice.bytes >= home.bytes;
                    let (offset, bytes) = (here.bytes, home.bytes);
                    here.copies.push(HostCopy {
                        home: slice.buffer,
                        offset,
                        bytes,
                        is_read: !whole,
                        is_written: writes,
                    });
                    here.bytes = (offset + bytes).next_multiple_of(alignment);
                }
            }
        }
        if !here.copies.is_empty() {
            accesses.push(here);
        }
    }
    accesses
}
