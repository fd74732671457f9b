//! `allocate`: gives every buffer its offset in the arena, so that buffers which live at the same time never overlap.
//!
//! Greedy by size, after Pisarchyk and Lee, "Efficient memory management for deep neural net inference" (2020): the
//! largest buffer first, each at the lowest offset that is free during its whole life.

use std::collections::{BTreeMap, BTreeSet};

use plan::{Life, Plan};

/// Offsets for all persistent buffers and for those of every program.
pub fn allocate(plan: &mut Plan, alignment: u64) {
    for (c, class) in plan.classes.iter_mut().enumerate() {
        let mut end = 0;
        for buffer in &mut class.persistent {
            buffer.offset = end;
            end = (end + buffer.bytes).next_multiple_of(alignment);
        }
        for program in &mut plan.programs {
            let body = &mut program.bodies[c];
            let items: Vec<Item> = body.buffers.iter().map(|b| Item::new(b.bytes, b.life)).collect();
            let (offsets, bytes) = place(&items, alignment);
            for (buffer, offset) in body.buffers.iter_mut().zip(offsets) {
                buffer.offset = end + offset;
            }
            body.arena_bytes = end + bytes;
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Item {
    bytes: u64,
    first: u32,
    last: u32,
}

impl Item {
    /// Its row, and the first and last of its boxes there.
    fn boxes(&self) -> (u32, std::ops::RangeInclusive<u32>) {
        let row = self.last.saturating_sub(self.first).checked_ilog2().unwrap_or(0);
        (row, self.first >> row..=self.last >> row)
    }

    fn new(bytes: u64, life: Life) -> Self {
        match life {
            Life::Span { first, last } => Self { bytes, first, last },
            Life::Persistent => Self { bytes, first: 0, last: u32::MAX },
        }
    }
}

/// The offset of each item, and the size of the whole.
fn place(items: &[Item], alignment: u64) -> (Vec<u64>, u64) {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(items[i].bytes), items[i].first, i));
    let mut offsets = vec![0; items.len()];
    let mut placed = Placed::default();
    let mut peak = 0;
    for i in order {
        let item = items[i];
        let mut offset = 0;
        // A scan stops at the first gap that is wide enough.
        for (start, end) in placed.beside(items, &item) {
            if start >= offset + item.bytes {
                break;
            }
            offset = offset.max(end.next_multiple_of(alignment));
        }
        offsets[i] = offset;
        peak = peak.max(offset + item.bytes);
        placed.insert(items, i, offset);
    }
    (offsets, peak.next_multiple_of(alignment))
}

/// Items that have a place, found by when they live.
///
/// An item of a life between 2^n and 2^(n+1) stands in row n, in one or two boxes of that width.
#[derive(Default)]
struct Placed {
    rows: BTreeMap<(u32, u32), Vec<(u64, usize)>>,
    by_offset: BTreeSet<(u64, usize)>,
}

impl Placed {
    fn insert(&mut self, items: &[Item], i: usize, offset: u64) {
        let (row, boxes) = items[i].boxes();
        for at in boxes {
            self.rows.entry((row, at)).or_default().push((offset, i));
        }
        self.by_offset.insert((offset, i));
    }

    /// Begin and end of all that live when `item` does, by their begin.
    fn beside<'a>(&'a self, items: &'a [Item], item: &'a Item) -> Box<dyn Iterator<Item = (u64, u64)> + 'a> {
        let meets = |other: &Item| other.last >= item.first && item.last >= other.first;
        let range = |&(offset, i): &(u64, usize)| (offset, offset + items[i].bytes);
        // Most items live beside one of a long life, and the scan seldom gets far.
        if item.last.saturating_sub(item.first) as usize > items.len() / 8 {
            return Box::new(self.by_offset.iter().filter(move |(_, i)| meets(&items[*i])).map(range));
        }
        let rows = (0..u32::BITS).flat_map(|row| self.rows.range((row, item.first >> row)..=(row, item.last >> row)));
        let mut found: Vec<(u64, usize)> =
            rows.flat_map(|(_, of)| of).filter(|(_, i)| meets(&items[*i])).copied().collect();
        found.sort_unstable();
        found.dedup();
        Box::new(found.into_iter().map(move |at| range(&at)))
    }
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
