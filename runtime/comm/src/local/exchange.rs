//! An exchange: one rank's part in a collective, reading its peers' memory between two meetings of all of them.
//!
//! The rule that makes this sound: nobody is between its first and its last meeting unless all members are, and none of
//! them leaves before all have read. So each member's areas are valid, its sources do not change, and its targets are
//! touched by itself alone, as its caller promised for as long as `run` lasts.
#![allow(unsafe_code, reason = "peers read each other's memory in place")]

use std::sync::Arc;

use super::World;
use super::meeting::Meeting;
use crate::reduce::reduce;
use crate::{Area, Collective, CommError, Kind, Operation};

/// From this many bytes on, each rank of an all-reduce reduces a share of the elements and the others copy it: more
/// meetings, but far fewer bytes than if each reduced everything.
const SHARED_BYTES: usize = 1 << 16;

/// Elements in a share are a multiple of this, so that no two ranks write to one cache line.
const SHARE_ELEMENTS: usize = 64;

pub struct Exchange {
    pub meeting: Arc<Meeting>,
    pub position: usize,
    pub rank: usize,
    pub world: Arc<World>,
}

impl Collective for Exchange {
    unsafe fn run(&self) -> Result<(), CommError> {
        let late = || self.world.late(self.rank, &self.meeting);
        if !self.meeting.meet(self.position, self.world.patience, late) {
            return Err(CommError::Ended(self.world.report(Some(&self.meeting))));
        }
        let bound = Bound;
        // SAFETY: all members have met, which each does under this function's contract, and none returns before the last
        // meeting: `Bound` sees to it even if a panic unwinds.
        unsafe { self.exchange() };
        self.meeting.meet_again(self.position);
        std::mem::forget(bound);
        Ok(())
    }
}

/// Keeps a rank from leaving while peers use its memory.
struct Bound;

impl Drop for Bound {
    fn drop(&mut self) {
        // Only a panic gets here. The peers wait for a meeting that cannot take place any more.
        std::process::abort();
    }
}

impl Exchange {
    fn operation(&self, position: usize) -> &Operation {
        // All members are prepared before they meet.
        self.meeting.operations[position].get().expect("a member that met")
    }

    /// The first meeting is over and the last one is not.
    ///
    /// # Safety
    /// The contract of [`Collective::run`] holds for all members until the last meeting.
    unsafe fn exchange(&self) {
        let own = self.operation(self.position);
        let ranks = self.meeting.members.len();
        // SAFETY: a member's source, which nobody writes now; the sizes were compared when the members prepared.
        let source = |position: usize, i: usize| unsafe { read(&self.operation(position).from[i]) };
        if let Kind::AllReduce(_) = own.kind
            && ranks > 1
            && own.to.iter().map(|a| a.bytes).sum::<usize>() >= SHARED_BYTES
        {
            // SAFETY: this function's contract.
            unsafe { self.all_reduce_by_shares() };
            return;
        }
        for (i, area) in own.to.iter().enumerate() {
            if area.bytes == 0 {
                continue;
            }
            // SAFETY: this rank's target, which nobody else touches, and which overlaps no source of its own.
            let to = unsafe { write(area) };
            let piece = |position: usize, at: usize, bytes: usize| &source(position, i)[at * bytes..][..bytes];
            match &own.kind {
                Kind::AllReduce(how) => reduce(*how, to, ranks, |p| source(p, i)),
                Kind::ReduceScatter(how) => {
                    let bytes = to.len();
                    reduce(*how, to, ranks, |p| piece(p, self.position, bytes));
                }
                Kind::AllGather => {
                    let bytes = to.len() / ranks;
                    to.chunks_exact_mut(bytes).enumerate().for_each(|(p, to)| to.copy_from_slice(source(p, i)));
                }
                Kind::AllToAll => {
                    let bytes = to.len() / ranks;
                    let pieces = to.chunks_exact_mut(bytes).enumerate();
                    pieces.for_each(|(p, to)| to.copy_from_slice(piece(p, self.position, bytes)));
                }
                Kind::Broadcast { root } => to.copy_from_slice(source(*root, i)),
                Kind::Permute { shifts } => {
                    let back = shifts[i].rem_euclid(ranks as i64) as usize;
                    to.copy_from_slice(source((self.position + ranks - back) % ranks, i));
                }
                Kind::Receive { .. } => to.copy_from_slice(source(0, i)),
                Kind::Send { .. } => {}
            }
        }
    }

    /// # Safety
    /// As for [`Self::exchange`].
    unsafe fn all_reduce_by_shares(&self) {
        let own = self.operation(self.position);
        let Kind::AllReduce(how) = own.kind else { return };
        let ranks = self.meeting.members.len();
        let share = |area: &Area, position: usize| {
            let each = (area.bytes / how.dtype.bytes()).div_ceil(ranks).next_multiple_of(SHARE_ELEMENTS);
            let bytes = each * how.dtype.bytes();
            let from = (position * bytes).min(area.bytes);
            from..(from + bytes).min(area.bytes)
        };
        for (i, area) in own.to.iter().enumerate() {
            let mine = share(area, self.position);
            // SAFETY: inside this rank's target. Nobody reads it before the meeting below.
            let to = unsafe { write(&part(area, mine.clone())) };
            // SAFETY: a member's source, which nobody writes now.
            reduce(how, to, ranks, |p| unsafe { read(&part(&self.operation(p).from[i], mine.clone())) });
        }
        self.meeting.meet_again(self.position);
        for (i, area) in own.to.iter().enumerate() {
            for p in (0..ranks).filter(|p| *p != self.position) {
                let theirs = share(area, p);
                // SAFETY: between these meetings each rank's own share is only read, and the other shares of its target
                // are only written, by itself.
                let (from, to) = unsafe {
                    let from = read(&part(&self.operation(p).to[i], theirs.clone()));
                    (from, write(&part(area, theirs)))
                };
                to.copy_from_slice(from);
            }
        }
    }
}

/// # Panics
/// If the range is not inside the area.
fn part(area: &Area, range: std::ops::Range<usize>) -> Area {
    assert!(range.start <= range.end && range.end <= area.bytes, "a range inside the area");
    // SAFETY: inside the area, or one past its end for an empty range.
    Area { at: unsafe { area.at.add(range.start) }, bytes: range.end - range.start }
}

/// # Safety
/// The area is valid, and nobody writes it while the slice lives.
unsafe fn read<'a>(area: &Area) -> &'a [u8] {
    // SAFETY: says the caller.
    unsafe { std::slice::from_raw_parts(area.at, area.bytes) }
}

/// # Safety
/// The area is valid, and nobody else touches it while the slice lives.
unsafe fn write<'a>(area: &Area) -> &'a mut [u8] {
    // SAFETY: says the caller.
    unsafe { std::slice::from_raw_parts_mut(area.at, area.bytes) }
}
