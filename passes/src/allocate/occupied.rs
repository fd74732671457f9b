//! What is occupied when: bytes that are taken, in a segment tree over time.
//!
//! A node stands for a span of time, and its children for the halves of it. It keeps which bytes are taken during all of
//! its span, by lives that do not cover its parent's, and which are taken at any moment of it. So a life is written to, and
//! asked of, a number of nodes that grows with the logarithm of time, whoever else lives then.

use smallvec::SmallVec;

use super::Item;

type Nodes = SmallVec<[usize; 40]>;

pub struct Occupied {
    /// The moments at which lives end, ascending: time is counted in those that are over. Lives that meet do so by this
    /// count as well, and others do not.
    moments: Vec<u32>,
    /// The children of node n are 2n and 2n + 1; leaves begin in the middle.
    nodes: Vec<Node>,
}

#[derive(Clone, Default)]
struct Node {
    always: Ranges,
    ever: Ranges,
}

/// Ranges of bytes, ascending; no two of them touch.
#[derive(Clone, Default)]
struct Ranges(Vec<(u64, u64)>);

impl Occupied {
    /// Nothing is taken; these are all the lives that there will be.
    pub fn new(items: &[Item]) -> Self {
        let mut moments: Vec<u32> = items.iter().map(|item| item.last).collect();
        moments.sort_unstable();
        moments.dedup();
        let leaves = moments.len().next_power_of_two();
        Self { nodes: vec![Node::default(); 2 * leaves], moments }
    }

    /// Takes the lowest bytes, aligned, that are free during the whole life of `item`; gives their offset.
    pub fn take(&mut self, item: &Item, alignment: u64) -> u64 {
        let leaves = self.nodes.len() / 2;
        let leaf = |moment: u32| leaves + self.moments.partition_point(|m| *m < moment);
        let (first, last) = (leaf(item.first), leaf(item.last));
        let (covered, above) = (covered(first, last), above(first, last));
        let offset = {
            let ever = covered.iter().map(|&node| &self.nodes[node].ever.0);
            let always = above.iter().map(|&node| &self.nodes[node].always.0);
            let taken = ever.chain(always).filter(|ranges| !ranges.is_empty()).map(Vec::as_slice);
            lowest(&mut taken.collect::<SmallVec<[&[(u64, u64)]; 80]>>(), item.bytes)
        };
        let range = (offset, (offset + item.bytes).next_multiple_of(alignment));
        for node in covered {
            self.nodes[node].always.add(range);
            self.nodes[node].ever.add(range);
        }
        for node in above {
            self.nodes[node].ever.add(range);
        }
        offset
    }
}

/// The fewest nodes that together stand for the time between two leaves.
fn covered(mut first: usize, last: usize) -> Nodes {
    let (mut end, mut nodes) = (last + 1, Nodes::new());
    while first < end {
        if first % 2 == 1 {
            nodes.push(first);
            first += 1;
        }
        if end % 2 == 1 {
            end -= 1;
            nodes.push(end);
        }
        (first, end) = (first / 2, end / 2);
    }
    nodes
}

/// All nodes above those: what stands for some of the time, and for time outside of it.
fn above(first: usize, last: usize) -> Nodes {
    let mut nodes = Nodes::new();
    let (mut left, mut right) = (first / 2, last / 2);
    let mut level = 1;
    while left > 0 {
        let inside = |node: usize| node << level >= first && ((node + 1) << level) - 1 <= last;
        nodes.extend([left].into_iter().filter(|node| !inside(*node)));
        nodes.extend([right].into_iter().filter(|node| *node != left && !inside(*node)));
        (left, right, level) = (left / 2, right / 2, level + 1);
    }
    nodes
}

/// Where so many bytes are free of all ranges.
fn lowest(asked: &mut [&[(u64, u64)]], bytes: u64) -> u64 {
    let mut offset = 0;
    loop {
        let before = offset;
        for ranges in asked.iter_mut() {
            let passed = ranges.partition_point(|(_, end)| *end <= offset);
            *ranges = &ranges[passed..];
            while let Some(&(_, end)) = ranges.first().filter(|(begin, _)| *begin < offset + bytes) {
                offset = end;
                *ranges = &ranges[1..];
            }
        }
        if offset == before {
            return offset;
        }
    }
}

impl Ranges {
    fn add(&mut self, (begin, end): (u64, u64)) {
        // All that it touches become one with it.
        let first = self.0.partition_point(|(_, e)| *e < begin);
        let after = first + self.0[first..].partition_point(|(b, _)| *b <= end);
        if first == after {
            self.0.insert(first, (begin, end));
            return;
        }
        let joined = (begin.min(self.0[first].0), end.max(self.0[after - 1].1));
        self.0[first] = joined;
        self.0.drain(first + 1..after);
    }
}
