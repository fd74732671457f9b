//! Persistent buffers in the host's memory: whatever touches one works on a copy, which comes in time and goes back at once.
//!
//! Copies share a few slots, so that no more of them are on the device than travel or are worked on.

use plan::{Access, Buffer, BufferId, BufferKind, Instruction, Kernel, LaneId, Life, Op, Slice, Space};

use super::super::unroll::{Turn, Unrolled};
use super::super::update::{accesses, slices_mut};

/// One is on its way in, one is worked on, one is on its way out.
const SLOTS: usize = 3;

/// What an instruction touches of the host's memory.
struct Guest {
    at: usize,
    /// Each buffer with where its copy lies in the slot, and whether it is read and written.
    copies: Vec<(BufferId, u64, bool, bool)>,
    bytes: u64,
}

/// Runs on instructions in their final order.
pub fn bring(unrolled: Unrolled, persistent: &[Buffer], kernels: &[Kernel], alignment: u64) -> Unrolled {
    let guests = guests(&unrolled.instructions, persistent, kernels, alignment);
    let Some(largest) = guests.iter().map(|guest| guest.bytes).max() else { return unrolled };
    let Unrolled { mut buffers, instructions, turns, updates, once } = unrolled;
    let slots: Vec<BufferId> = (0..SLOTS.min(guests.len()))
        .map(|slot| {
            let name = format!("optimiser slot {slot}").into();
            let life = Life::Span { first: 0, last: 0 };
            let (kind, space) = (BufferKind::Workspace, Space::Device);
            buffers.push(Buffer { name, kind, space, offset: 0, bytes: largest, ty: None, life });
            BufferId::new(persistent.len() + buffers.len() - 1)
        })
        .collect();
    // By guest: before which instruction its copies are asked for.
    let begin = |at: usize| {
        let turn = turns.partition_point(|turn| turn.at <= at);
        turn.checked_sub(2).map_or(0, |before| turns[before].at)
    };
    let asked = guests.iter().enumerate().map(|(g, guest)| {
        let free = g.checked_sub(SLOTS - 1).map_or(0, |before| guests[before].at + 1);
        begin(guest.at).max(free).min(guest.at)
    });
    let asked: Vec<usize> = asked.collect();
    let mut out: Vec<Instruction> = Vec::with_capacity(instructions.len() + 4 * guests.len());
    let mut placed: Vec<Turn> = vec![];
    let (mut begins, mut next, mut here) = (turns.iter().peekable(), 0, 0);
    let copy = |place, from, to| Instruction { lane: LaneId::new(0), place, op: Op::Copy { from, to } };
    for (i, mut instruction) in instructions.into_iter().enumerate() {
        while let Some(turn) = begins.next_if(|turn| turn.at <= i) {
            placed.push(Turn { at: out.len(), ..*turn });
        }
        while let Some(guest) = guests.get(next).filter(|_| asked[next] <= i) {
            for &(home, offset, is_read, _) in guest.copies.iter().filter(|(_, _, is_read, _)| *is_read) {
                debug_assert!(is_read);
                let bytes = persistent[home.index()].bytes;
                out.push(copy(
                    instruction.place,
                    Slice::whole(home, bytes),
                    Slice { buffer: slots[next % SLOTS], offset, bytes },
                ));
            }
            next += 1;
        }
        let Some(guest) = guests.get(here).filter(|guest| guest.at == i) else {
            out.push(instruction);
            continue;
        };
        for slice in slices_mut(&mut instruction.op) {
            if let Some((_, offset, ..)) = guest.copies.iter().find(|(home, ..)| *home == slice.buffer) {
                *slice = Slice { buffer: slots[here % SLOTS], offset: offset + slice.offset, ..*slice };
            }
        }
        let place = instruction.place;
        out.push(instruction);
        for &(home, offset, ..) in guest.copies.iter().filter(|(.., is_written)| *is_written) {
            let bytes = persistent[home.index()].bytes;
            out.push(copy(place, Slice { buffer: slots[here % SLOTS], offset, bytes }, Slice::whole(home, bytes)));
        }
        here += 1;
    }
    placed.extend(begins.map(|turn| Turn { at: out.len(), ..*turn }));
    Unrolled { buffers, instructions: out, turns: placed, updates, once }
}

fn guests(instructions: &[Instruction], persistent: &[Buffer], kernels: &[Kernel], alignment: u64) -> Vec<Guest> {
    let mut guests = vec![];
    // A copy is one already.
    for (at, instruction) in instructions.iter().enumerate().filter(|(_, i)| !matches!(i.op, Op::Copy { .. })) {
        let mut guest = Guest { at, copies: vec![], bytes: 0 };
        for (slice, access) in instruction.op.touches(|k| accesses(kernels, k)) {
            let Some(home) = persistent.get(slice.buffer.index()).filter(|b| b.on_host()) else { continue };
            let (reads, writes) = (access.reads(), access.writes());
            match guest.copies.iter_mut().find(|(id, ..)| *id == slice.buffer) {
                Some((_, _, read, written)) => (*read, *written) = (*read || reads, *written || writes),
                None => {
                    // A part that is written leaves the rest as it was.
                    let whole = access == Access::Write && slice.bytes >= home.bytes;
                    guest.copies.push((slice.buffer, guest.bytes, !whole, writes));
                    guest.bytes = (guest.bytes + home.bytes).next_multiple_of(alignment);
                }
            }
        }
        if !guest.copies.is_empty() {
            guests.push(guest);
        }
    }
    guests
}
