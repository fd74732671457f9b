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
        let source = |position: usize, i: usize| unsafe { self.operation(position).from[i].read() };
        if own.is_shared() {
            // SAFETY: this function's contract.
            unsafe { self.all_reduce_by_shares() };
            return;
        }
        for (i, area) in own.to.iter().enumerate() {
            if area.bytes == 0 {
                continue;
            }
            // SAFETY: this rank's target, which nobody else touches, and which overlaps no source of its own.
            let to = unsafe { area.write() };
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
        let share = |area: &Area, position: usize| area.share(how.dtype.bytes(), ranks, position);
        for (i, area) in own.to.iter().enumerate() {
            let mine = share(area, self.position);
            // SAFETY: inside this rank's target. Nobody reads it before the meeting below.
            let to = unsafe { area.part(mine.clone()).write() };
            // SAFETY: a member's source, which nobody writes now.
            reduce(how, to, ranks, |p| unsafe { self.operation(p).from[i].part(mine.clone()).read() });
        }
        self.meeting.meet_again(self.position);
        for (i, area) in own.to.iter().enumerate() {
            for p in (0..ranks).filter(|p| *p != self.position) {
                let theirs = share(area, p);
                // SAFETY: between these meetings each rank's own share is only read, and the other shares of its target
                // are only written, by itself.
                let (from, to) = unsafe {
                    let from = self.operation(p).to[i].part(theirs.clone()).read();
                    (from, area.part(theirs).write())
                };
                to.copy_from_slice(from);
            }
        }
    }
}
