//! The lives of buffers, measured on the compute lane: whoever's life ends there before another's begins is through with
//! the bytes, on whatever lane it used them.

use std::collections::HashMap;

use plan::{Buffer, BufferId, EventId, Instruction, Kernel, LaneId, Life, Op, Slice};

use super::update::{accesses, slices_mut};

const COMPUTE: LaneId = LaneId(0);

/// Buffers that nothing touches are dropped, and `instructions` then count on without them.
pub fn lives(
    buffers: Vec<Buffer>,
    instructions: &mut [Instruction],
    kernels: &[Kernel],
    persistent: usize,
) -> Vec<Buffer> {
    let begins = begins(instructions);
    let ends = ends(instructions);
    let mut spans: Vec<Option<(u32, u32)>> = vec![None; buffers.len()];
    for (i, instruction) in instructions.iter().enumerate() {
        for (slice, _) in instruction.op.slices(|k| accesses(kernels, k)) {
            if let Some(own) = slice.buffer.index().checked_sub(persistent) {
                let span = spans[own].get_or_insert((begins[i], ends[i]));
                *span = (span.0.min(begins[i]), span.1.max(ends[i]));
            }
        }
    }
    let mut ids = vec![None; buffers.len()];
    let mut kept = vec![];
    for (own, (mut buffer, span)) in buffers.into_iter().zip(spans).enumerate() {
        if let Some((first, last)) = span {
            buffer.life = Life::Span { first, last };
            ids[own] = Some(BufferId::new(persistent + kept.len()));
            kept.push(buffer);
        }
    }
    let rename = |slice: &mut Slice| {
        if let Some(id) = slice.buffer.index().checked_sub(persistent).and_then(|own| ids[own]) {
            slice.buffer = id;
        }
    };
    instructions.iter_mut().flat_map(|i| slices_mut(&mut i.op)).for_each(rename);
    kept
}

/// By instruction: the last one of compute that comes before it for certain; itself on compute, and where there is none.
fn begins(instructions: &[Instruction]) -> Vec<u32> {
    nearest(instructions, instructions.iter().enumerate(), u32::max, |op| matches!(op, Op::Record { .. }))
}

/// By instruction: the first one of compute that comes after it for certain; itself on compute, and where there is none.
fn ends(instructions: &[Instruction]) -> Vec<u32> {
    nearest(instructions, instructions.iter().enumerate().rev(), u32::min, |op| matches!(op, Op::Wait { .. }))
}

/// What a lane knows of compute goes on along the lane, and through events from the side that is met first to the other.
fn nearest<'a>(
    instructions: &[Instruction],
    walk: impl Iterator<Item = (usize, &'a Instruction)>,
    nearer: fn(u32, u32) -> u32,
    tells: fn(&Op) -> bool,
) -> Vec<u32> {
    let mut lanes: HashMap<LaneId, u32> = HashMap::new();
    let mut events: HashMap<EventId, u32> = HashMap::new();
    let mut out: Vec<u32> = (0..instructions.len() as u32).collect();
    for (i, instruction) in walk {
        if instruction.lane == COMPUTE {
            lanes.insert(COMPUTE, i as u32);
        }
        if let Op::Record { event } | Op::Wait { event } = instruction.op {
            let (mine, told) = (lanes.get(&instruction.lane).copied(), events.get(&event).copied());
            let both = mine.into_iter().chain(told).reduce(nearer);
            if tells(&instruction.op) {
                events.extend(both.map(|at| (event, at)));
            } else {
                lanes.extend(both.map(|at| (instruction.lane, at)));
            }
        }
        if let Some(&at) = lanes.get(&instruction.lane) {
            out[i] = at;
        }
    }
    out
}
