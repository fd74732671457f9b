//! Pipeline stages: what was written out for one rank is parted among the ranks of a pipeline.
//!
//! Each instruction gets one stage, where it alone is done; what depends on feeds and counters alone, or on parameters alone,
//! each rank does for itself if it reads it. A value that other ranks read is sent to each of them once: activations and
//! their gradients, tied parameters, the sum that clips gradients. On each rank, the work of a stage on a micro-batch is a unit, and units stand in
//! the order of the schedule.

mod assign;
mod program;
mod travel;
mod units;

use std::collections::HashMap;

use diag::{Diagnostics, Span};
use plan::{BufferId, BufferKind, Instruction, LaneId, Op, Slice};

pub use self::program::Written;
use self::travel::{Message, Uses};
use self::units::When;
use super::lanes::is_message;
use super::unroll::{Turn, Unrolled};
use super::update::slices_mut;
use super::{at_once, internal};
use crate::stages::{Grid, Kind, StageSchedule, Timeline, Unit};

/// How many ranks form a pipeline, how many stages each has, and in which order they work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pipelining {
    pub ranks: usize,
    pub chunks: usize,
    pub schedule: StageSchedule,
    /// Where it is wished.
    pub at: Option<Span>,
}

/// What one rank of the pipeline does.
pub struct Share {
    pub unrolled: Unrolled,
    /// By instruction: a number that those have in common which do the same for different micro-batches.
    pub sites: Vec<u32>,
    /// By persistent buffer: whether the rank holds it.
    pub holds: Vec<bool>,
    /// By the id of a send: the unit that waits for it.
    pub settles: HashMap<u32, u32>,
    /// Its units.
    pub order: Vec<Unit>,
}

/// The shares of a pipeline's ranks; `seconds` says how long each instruction takes, and `collects` counts collectives.
pub fn project(
    written: &Written<'_>,
    pipelining: &Pipelining,
    seconds: &[f64],
    collects: &mut u32,
) -> Result<Vec<Share>, Diagnostics> {
    let &Pipelining { ranks, chunks, schedule, at } = pipelining;
    let grid = Grid { ranks, chunks, microbatches: written.microbatches };
    let placed = |mut errors: Diagnostics| {
        errors.0 = errors.0.into_iter().map(|e| at.into_iter().fold(e, |e, at| e.at(at, ""))).collect();
        errors
    };
    let orders = schedule.orders(&grid).map_err(placed)?;
    let length =
        |unit: &Unit| if unit.kind == Kind::Backward && !schedule.kinds().contains(&Kind::Weights) { 2 } else { 1 };
    let timeline = Timeline::play(grid, schedule.kinds(), &orders, length).map_err(|e| internal(e.to_string()))?;
    let assigned = assign::assign(written, &grid, seconds).map_err(placed)?;
    let whens = units::whens(written, &assigned, &orders, schedule.kinds());
    let uses = at_once(0..ranks, |rank| travel::uses(written, &assigned, &whens, (rank, ranks)));
    let messages = travel::messages(written, &assigned, &whens, &uses);
    let first = *collects;
    *collects += messages.len() as u32;
    let sites = super::keep::sites(written.origins);
    let holds = |rank: usize| {
        let homes = assigned.homes[..written.persistent.len()].iter();
        homes.map(|home| home.is_none_or(|stage| stage % ranks == rank)).collect::<Vec<bool>>()
    };
    let shared = at_once(uses.iter().enumerate(), |(rank, uses)| {
        let holds = holds(rank);
        (share(written, uses, rank, &messages, first, &holds), holds)
    });
    let ranks = shared.into_iter().zip(&uses).zip(orders).enumerate();
    let shares = ranks.map(|(rank, ((((mut unrolled, from), holds), uses), order))| {
        let sends = (first..).zip(&messages).filter(|(_, m)| m.from == rank);
        let settles = sends.filter_map(|(id, m)| Some((id, m.settled(&timeline)?))).collect();
        // A message is like no other.
        let own = |(at, from): (usize, &Option<usize>)| from.map_or(u32::MAX - at as u32, |i| sites[i]);
        let sites = from.iter().enumerate().map(own).collect();
        // What several ranks do for themselves, they do in groups of their own.
        for instruction in &mut unrolled.instructions {
            if let Op::Collect(collect) = &mut instruction.op
                && uses.shared.contains(&collect.id)
            {
                collect.id = *collects;
                *collects += 1;
            }
        }
        Share { unrolled, sites, holds, settles, order }
    });
    Ok(shares.collect())
}

/// What a rank does, and of its instructions, which of the program's each is.
fn share(
    written: &Written<'_>,
    uses: &Uses,
    rank: usize,
    messages: &[Message],
    first: u32,
    holds: &[bool],
) -> (Unrolled, Vec<Option<usize>>) {
    let own = |messages: &&Message| messages.from == rank || messages.to == rank;
    let held = |home: &BufferId| holds.get(home.index()).copied().unwrap_or(false);
    let persistent = written.persistent.len();
    // Of the buffers, those that this rank touches.
    let mut touched = vec![false; written.buffers()];
    for slice in uses.own.iter().flat_map(|&(_, i)| written.touches(i)) {
        touched[slice.0.buffer.index()] = true;
    }
    messages.iter().filter(own).flat_map(|m| &m.values).for_each(|value| touched[value.index()] = true);
    let mut ids: Vec<BufferId> = (0..persistent).map(BufferId::new).collect();
    let mut buffers = vec![];
    for (buffer, touched) in written.unrolled.buffers.iter().zip(&touched[persistent..]) {
        ids.push(BufferId::new(persistent + buffers.len()));
        buffers.extend(touched.then(|| buffer.clone()));
    }

    let mut items: Vec<(When, Instruction)> = Vec::with_capacity(uses.own.len() + messages.len());
    for (id, message) in (first..).zip(messages).filter(|(_, m)| own(m)) {
        let sends = message.from == rank;
        for value in message.values.iter().filter(|value| !sends && value.index() < persistent) {
            // A parameter of another rank has no place among this one's.
            let mut copy = written.persistent[value.index()].clone();
            (copy.kind, copy.life) = (BufferKind::Comm, plan::Life::Span { first: 0, last: 0 });
            ids[value.index()] = BufferId::new(persistent + buffers.len());
            buffers.push(copy);
        }
        let here: Vec<BufferId> = message.values.iter().map(|value| ids[value.index()]).collect();
        let when = if sends { message.sent } else { message.received };
        let at = when.index.min(written.len().saturating_sub(1));
        let (lane, place) = (LaneId::new(0), written.unrolled.instructions[at].place);
        let op = Op::Collect(message.collect(id, written, sends, &here).into());
        items.push((when, Instruction { lane, place, op }));
    }
    items.extend(uses.own.iter().map(|&(when, i)| {
        let mut instruction = written.unrolled.instructions[i].clone();
        slices_mut(&mut instruction.op).into_iter().for_each(|slice| slice.buffer = ids[slice.buffer.index()]);
        (when, instruction)
    }));
    items.sort_by_key(|(when, _)| *when);
    let turns = turns(&written.unrolled.turns, &items);
    let from = items.iter().map(|(when, i)| Some(when.index).filter(|_| !is_message(&i.op))).collect();
    let instructions = items.into_iter().map(|(_, instruction)| instruction).collect();
    let updates = written.unrolled.updates.iter().filter(|(_, home)| held(home));
    let updates = updates.map(|(value, home)| (Slice { buffer: ids[value.buffer.index()], ..*value }, *home)).collect();
    let once = written.unrolled.once.iter().filter(|id| touched[id.index()]).map(|id| ids[id.index()]).collect();
    (Unrolled { buffers, instructions, turns, updates, once }, from)
}

/// Turns as they follow each other on a rank; a unit begins one.
fn turns(old: &[Turn], items: &[(When, Instruction)]) -> Vec<Turn> {
    let mut turns = vec![];
    let mut before = None;
    for (at, (when, _)) in items.iter().enumerate() {
        let turn = old.partition_point(|turn| turn.at <= when.index);
        let here = (when.during, turn);
        let is_unit = before.is_none_or(|(during, _)| during != when.during);
        let is_block = match before {
            Some((_, last)) if !is_unit && last <= turn => old[last..turn].iter().any(|t| t.is_block),
            _ => true,
        };
        if before != Some(here) {
            turns.push(Turn { at, is_block, unit: is_unit.then(|| when.during.number()) });
        }
        before = Some(here);
    }
    turns
}
