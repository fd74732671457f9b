//! The search along the frontier of `remat` for the first program that fits the memory, which is the fastest.

use program::{Lane, RankProgram};

use crate::memory_policy::{Budget, MemoryPolicy};
use crate::ranks::{RankContext, RankPass};
use crate::remat::{self, Facts, Frontier, device_bytes};

/// Programs of so many instructions are lowered at every level of the frontier until one fits; of larger ones few are.
const SMALL: usize = 8_000;
/// Levels of the frontier that are looked at.
const LEVELS: usize = 32;
/// Of the room, what an estimate may fill: buffers do not lie without gaps, and gathered parameters come on top.
const FILLED: f64 = 0.96;
/// The frontier goes on to this part of the room, for where the estimate was too low.
const LEAST: f64 = 0.85;

struct Trial {
    program: RankProgram,
    need: u64,
}

/// The program after these passes, with as little recomputed and offloaded as the budget allows.
pub fn fastest_that_fits(
    program: &RankProgram,
    policy: &MemoryPolicy,
    closing: &[(&'static str, &dyn RankPass)],
    cx: &mut RankContext<'_>,
) -> RankProgram {
    let rate = cx.times.host_bytes_per_second();
    let facts = Facts::new(program, cx.alignment, &mut cx.times);
    let fixed = facts.fixed(program) as i64;
    let is_small = facts.len() <= SMALL;
    let budget = policy.budget.unwrap_or(Budget { bytes: u64::MAX, communicator: 0 });
    let [filled, least] = [FILLED, LEAST].map(|part| (budget.bytes as f64 * part) as i64 - fixed);
    let enough = match policy.budget {
        None => i64::MAX,
        Some(_) if is_small => i64::MIN,
        Some(_) => least,
    };
    let frontier = Frontier::new(&facts, program, &policy.remat(), rate, enough);
    let mut trial = |step: usize| {
        let mut program = remat::rewrite(program, &facts, &frontier.decisions(step));
        closing.iter().for_each(|(_, pass)| pass.run(&mut program, cx));
        Trial { need: need(&program, budget, cx.alignment), program }
    };
    let levels = frontier.levels(LEVELS);
    let estimate = |level: usize| frontier.steps[levels[level]].bytes;
    // What does not fit whatever is decided is lowered once, for the message.
    let hopeless = (fixed as u64).saturating_add(operands(program)) > budget.bytes;
    let mut level = match (hopeless, is_small) {
        (true, _) => levels.len() - 1,
        (false, true) => 0,
        (false, false) => (0..levels.len() - 1).find(|l| estimate(*l) <= filled).unwrap_or(levels.len() - 1),
    };
    let mut best = trial(levels[level]);
    let mut at = levels[level];
    while best.need > budget.bytes && level + 1 < levels.len() {
        let over = (best.need - budget.bytes) as i64;
        let want = estimate(level) - over;
        level = match is_small {
            true => level + 1,
            false => (level + 1..levels.len() - 1).find(|l| estimate(*l) <= want).unwrap_or(levels.len() - 1),
        };
        let next = trial(levels[level]);
        if next.need < best.need {
            (best, at) = (next, levels[level]);
        }
    }
    let kept = remat::listed(program, &frontier, at, rate);
    RankProgram { kept, ..best.program }
}

/// The most that one instruction touches beside persistent buffers.
fn operands(program: &RankProgram) -> u64 {
    let of = |instruction: &program::Instruction| {
        let mut touched: Vec<(plan::BufferId, u64)> = program
            .touches(instruction)
            .filter(|(slice, _)| slice.buffer.index() >= program.persistent)
            .map(|(slice, _)| (slice.buffer, slice.bytes))
            .collect();
        // The largest slice of each buffer.
        touched.sort_unstable_by_key(|(buffer, bytes)| (*buffer, std::cmp::Reverse(*bytes)));
        touched.dedup_by_key(|(buffer, _)| *buffer);
        touched.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add)
    };
    program.instructions.iter().map(of).max().unwrap_or(0)
}

/// Bytes on the device: persistent buffers that are held there, the arena, and communicators.
fn need(program: &RankProgram, budget: Budget, alignment: u64) -> u64 {
    let held = program.buffers.iter().zip(&program.held).filter(|(buffer, held)| **held && !buffer.on_host());
    let held = device_bytes(held.map(|(buffer, _)| (buffer, buffer.bytes.next_multiple_of(alignment))));
    let communicators = program.lanes.iter().filter(|lane| matches!(lane, Lane::Comm { .. })).count() as u64;
    held + program.arena_bytes + communicators * budget.communicator
}
