//! A pick of the frontier: the first program along it that fits, which is the fastest.

use plan::{Body, Buffer, LaneKind, Op};

use super::keep::{self, Facts, Frontier, Keeping, Room, Surroundings};
use super::lanes::Communicators;
use super::places::Recorder;
use super::unroll::Unrolled;
use crate::allocate;

/// Programs of so many instructions are lowered at every level of the frontier until one fits; of larger ones few are.
const SMALL: usize = 8_000;
/// Levels of the frontier that are looked at.
const LEVELS: usize = 32;
/// Of the room, what an estimate may fill: buffers do not lie without gaps, and gathered parameters come on top.
const FILLED: f64 = 0.96;
/// The frontier goes on to this part of the room, for where the estimate was too low.
const LEAST: f64 = 0.85;

/// What is counted over a whole plan.
#[derive(Clone)]
pub struct Counted<'p> {
    pub collects: u32,
    pub communicators: Communicators,
    pub places: Recorder<'p>,
}

impl Counted<'_> {
    /// Goes on after what a rank counted by itself since `begin`; what it counted gets other numbers in its body, where others
    /// counted too.
    pub fn take_in(&mut self, own: Self, begin: &Self, body: &mut Body) {
        let places = self.places.take_in(own.places, &begin.places);
        let communicators = self.communicators.take_in(own.communicators);
        let before = self.collects - begin.collects;
        for instruction in &mut body.instructions {
            if let Some(place) = places.get(&instruction.place) {
                instruction.place = *place;
            }
            if let Op::Collect(collect) = &mut instruction.op
                && collect.id >= begin.collects
            {
                collect.id += before;
            }
        }
        for lane in &mut body.lanes {
            if let LaneKind::Comm(number) = lane {
                *number = communicators[*number as usize];
            }
        }
        for kept in &mut body.kept {
            kept.place = places.get(&kept.place).copied().unwrap_or(kept.place);
        }
        self.collects += own.collects - begin.collects;
    }
}

pub struct Picked {
    pub body: Body,
    /// With their homes.
    pub persistent: Vec<Buffer>,
}

/// Brings a program into its final form.
pub type Lower<'l, 'p> = dyn FnMut(Unrolled, &[Buffer], &mut Surroundings<'_, '_>, &mut Counted<'p>) -> Body + 'l;

struct Trial<'p> {
    picked: Picked,
    counted: Counted<'p>,
    need: u64,
}

/// Its buffers have their places above those that persist. `held` says which persistent buffers are here.
pub fn pick<'p>(
    unrolled: &Unrolled,
    sites: &[u32],
    held: &[bool],
    keeping: &Keeping,
    around: &mut Surroundings<'_, '_>,
    counted: &mut Counted<'p>,
    lower: &mut Lower<'_, 'p>,
) -> Picked {
    let facts = Facts::new(unrolled, around);
    let fixed: u64 = (0..facts.persistent).filter(|b| held[*b] && !facts.is_moment[*b]).map(|b| facts.bytes[b]).sum();
    let is_small = facts.len() <= SMALL;
    let room = keeping.room.unwrap_or(Room { bytes: u64::MAX, communicator: 0 });
    let [filled, least] = [FILLED, LEAST].map(|part| (room.bytes as f64 * part) as i64 - fixed as i64);
    let enough = match keeping.room {
        None => i64::MAX,
        Some(_) if is_small => i64::MIN,
        Some(_) => least,
    };
    let frontier = Frontier::new(&facts, sites, held, keeping, around, enough);
    let mut trial = |step: usize| {
        let mut counted = counted.clone();
        let decisions = frontier.decisions(step);
        let persistent = keep::housed(around.persistent, &decisions);
        let rewritten = keep::rewritten(unrolled, &facts, &decisions, &mut counted.collects);
        let mut body = lower(rewritten, &persistent, around, &mut counted);
        allocate::alone(&mut body, around.alignment);
        let kept = persistent.iter().zip(held).filter(|(b, held)| **held && !b.on_host());
        let kept: u64 = kept.map(|(b, _)| b.bytes.next_multiple_of(around.alignment)).sum();
        let communicators = body.lanes.iter().filter(|lane| matches!(lane, LaneKind::Comm(_))).count() as u64;
        let need = kept + body.arena_bytes + communicators * room.communicator;
        Trial { picked: Picked { body, persistent }, counted, need }
    };
    let levels = frontier.levels(LEVELS);
    let estimate = |level: usize| frontier.steps[levels[level]].bytes;
    let mut level =
        if is_small { 0 } else { (0..levels.len() - 1).find(|l| estimate(*l) <= filled).unwrap_or(levels.len() - 1) };
    let mut best = trial(levels[level]);
    let mut at = levels[level];
    while best.need > room.bytes && level + 1 < levels.len() {
        let over = (best.need - room.bytes) as i64;
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
    let Trial { mut picked, counted: now, .. } = best;
    *counted = now;
    picked.body.kept = keep::listed(unrolled, &frontier, at, around);
    picked
}
