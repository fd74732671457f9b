//! `allocate`: offsets of buffers in the arena. Buffers that live at the same time never overlap.
//!
//! Greedy by size, after Pisarchyk and Lee, "Efficient memory management for deep neural net inference" (2020): the
//! largest buffer first, each at the lowest offset that is free during its whole life. Where that leaves gaps, buffers that
//! ended up too high go earlier in another round, after Joslin and Clements, "Squeaky wheel optimization" (1999).

mod occupied;

use std::thread;

use plan::{Buffer, Life, Plan};
use program::RankProgram;
use serde::{Deserialize, Serialize};

use crate::RankPass;
use crate::ranks::RankContext;
use occupied::Occupied;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allocate {}

impl RankPass for Allocate {
    fn run(&self, program: &mut RankProgram, cx: &mut RankContext<'_>) {
        allocate(program, cx.alignment);
    }
}

/// An arena is small enough if it exceeds the lower bound by at most one part in so many.
const NEAR: u64 = 20;

/// The search ends after so many rounds without improvement, or so many placed items. There is always one round.
const FRUITLESS: usize = 8;
const PATIENCE: usize = 120_000;

/// Offsets for the buffers of a program, from 0 in each arena. In a plan they go above the persistent ones.
pub fn allocate(program: &mut RankProgram, alignment: u64) {
    let own = &mut program.buffers[program.persistent..];
    [program.arena_bytes, program.host_bytes] = place_buffers(own, alignment);
}

/// New offsets for a plan whose buffers have changed their sizes.
pub fn allocate_plan(plan: &mut Plan, alignment: u64) {
    thread::scope(|scope| {
        for body in plan.programs.iter_mut().flat_map(|p| &mut p.bodies) {
            scope.spawn(move || {
                [body.arena_bytes, body.host_bytes] = place_buffers(&mut body.buffers, alignment);
            });
        }
    });
    program::place_persistent(plan, alignment);
}

/// Sizes of the arenas on the device and on the host.
fn place_buffers(buffers: &mut [Buffer], alignment: u64) -> [u64; 2] {
    [false, true].map(|host| {
        let here: Vec<usize> = (0..buffers.len()).filter(|i| buffers[*i].on_host() == host).collect();
        // What follows begins at a multiple of the alignment.
        let bytes = |i: usize| buffers[i].bytes.next_multiple_of(alignment);
        let item = |i: &usize| Item::new(bytes(*i), buffers[*i].life);
        let (offsets, bytes) = place(&here.iter().map(item).collect::<Vec<_>>(), alignment);
        here.into_iter().zip(offsets).for_each(|(i, offset)| buffers[i].offset = offset);
        bytes
    })
}

#[derive(Clone, Copy, Debug)]
struct Item {
    bytes: u64,
    first: u32,
    last: u32,
}

impl Item {
    fn new(bytes: u64, life: Life) -> Self {
        match life {
            Life::Span { first, last } => Self { bytes, first, last },
            Life::Persistent | Life::Resident(_) => Self { bytes, first: 0, last: u32::MAX },
        }
    }
}

/// The offset of each item, and the size of the whole.
fn place(items: &[Item], alignment: u64) -> (Vec<u64>, u64) {
    let bound = most(items);
    let enough = bound.saturating_add(bound / NEAR);
    let mut weights: Vec<u64> = items.iter().map(|item| item.bytes).collect();
    let mut best: Option<(Vec<u64>, u64)> = None;
    let mut fruitless = 0;
    for _ in 0..(PATIENCE / items.len().max(1)).max(1) {
        let (offsets, bytes) = in_order(items, &weights, alignment);
        for ((item, offset), weight) in items.iter().zip(&offsets).zip(&mut weights) {
            if offset + item.bytes > bound {
                *weight = weight.saturating_add(*weight / 5 + 1);
            }
        }
        if best.as_ref().is_none_or(|(_, least)| bytes < *least) {
            (best, fruitless) = (Some((offsets, bytes)), 0);
        } else {
            fruitless += 1;
        }
        if fruitless == FRUITLESS || best.as_ref().is_some_and(|(_, least)| *least <= enough) {
            break;
        }
    }
    best.unwrap_or_default()
}

/// The most bytes that live at once: no placement is smaller.
fn most(items: &[Item]) -> u64 {
    let begins = items.iter().map(|item| (item.first, true, item.bytes));
    let ends = items.iter().map(|item| (item.last, false, item.bytes));
    let mut changes: Vec<(u32, bool, u64)> = begins.chain(ends).collect();
    // Lives include their last moment: what begins there comes first.
    changes.sort_unstable_by_key(|&(at, begins, _)| (at, !begins));
    let (mut now, mut most) = (0u64, 0);
    for (_, begins, bytes) in changes {
        now = if begins { now + bytes } else { now - bytes };
        most = most.max(now);
    }
    most
}

/// One after another, the heaviest first.
fn in_order(items: &[Item], weights: &[u64], alignment: u64) -> (Vec<u64>, u64) {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(weights[i]), items[i].first, i));
    let mut offsets = vec![0; items.len()];
    let mut occupied = Occupied::new(items);
    let mut peak = 0;
    for i in order {
        let item = items[i];
        offsets[i] = occupied.take(&item, alignment);
        peak = peak.max(offsets[i] + item.bytes);
    }
    (offsets, peak.next_multiple_of(alignment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_that_meet_do_not_overlap_and_others_share() {
        let item = |bytes, first, last| Item { bytes, first, last };
        let items = [item(100, 0, 3), item(100, 2, 5), item(100, 4, 6), item(7, 0, 6)];
        let (offsets, peak) = place(&items, 64);
        assert_eq!(offsets[0], offsets[2]);
        assert_ne!(offsets[0], offsets[1]);
        assert!(peak <= 320, "{peak}");
        for (i, a) in items.iter().enumerate() {
            for (j, b) in items.iter().enumerate().skip(i + 1) {
                let together = a.first <= b.last && b.first <= a.last;
                let apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                assert!(!together || apart, "items {i} and {j}");
            }
        }
    }
}
