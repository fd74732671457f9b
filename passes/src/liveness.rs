//! `liveness`: live ranges of buffers in compute-lane time. If one range ends before another begins, every lane has finished
//! with the first buffer's bytes.

use std::collections::HashMap;

use plan::{BufferId, EventId, LaneId, Life, Op};
use program::{Instruction, RankProgram};
use serde::{Deserialize, Serialize};

use crate::RankPass;
use crate::ranks::RankContext;

const COMPUTE: LaneId = LaneId(0);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Liveness {}

impl RankPass for Liveness {
    fn run(&self, program: &mut RankProgram, _: &mut RankContext<'_>) {
        liveness(program);
    }
}

/// Buffers that nothing touches are dropped, and the others renumbered.
pub fn liveness(program: &mut RankProgram) {
    let begins = begins(&program.instructions);
    let ends = ends(&program.instructions);
    let mut ranges: Vec<Option<(u32, u32)>> = vec![None; program.buffers.len()];
    for (i, instruction) in program.instructions.iter().enumerate() {
        for (slice, _) in program.touches(instruction) {
            let range = ranges[slice.buffer.index()].get_or_insert((begins[i], ends[i]));
            *range = (range.0.min(begins[i]), range.1.max(ends[i]));
        }
    }
    let mut ids: Vec<Option<BufferId>> = vec![];
    let mut kept = vec![];
    for (i, (mut buffer, range)) in std::mem::take(&mut program.buffers).into_iter().zip(ranges).enumerate() {
        ids.push((i < program.persistent || range.is_some()).then(|| BufferId::new(kept.len())));
        if i < program.persistent {
            kept.push(buffer);
        } else if let Some((first, last)) = range {
            buffer.life = Life::Span { first, last };
            kept.push(buffer);
        }
    }
    program.buffers = kept;
    let slices = program.instructions.iter_mut().flat_map(|i| i.op.slices_mut());
    let updates = program.updates.iter_mut().map(|update| &mut update.value);
    slices.chain(updates).for_each(|slice| slice.buffer = ids[slice.buffer.index()].unwrap_or(slice.buffer));
    program.once = std::mem::take(&mut program.once).into_iter().filter_map(|id| ids[id.index()]).collect();
}

/// By instruction: the last instruction of compute that is ordered before it; itself on compute, and where there is none.
fn begins(instructions: &[Instruction]) -> Vec<u32> {
    nearest(instructions, instructions.iter().enumerate(), u32::max, |op| matches!(op, Op::Record { .. }))
}

/// By instruction: the first instruction of compute that is ordered after it; itself on compute, and where there is none.
fn ends(instructions: &[Instruction]) -> Vec<u32> {
    nearest(instructions, instructions.iter().enumerate().rev(), u32::min, |op| matches!(op, Op::Wait { .. }))
}

/// Positions of compute propagate along each lane, and through events from the side that the walk meets first to the other.
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
