//! The time at which a rank executes each instruction: before the first micro-batch, in a unit of the schedule, or after the
//! last micro-batch.

use std::collections::HashMap;

use cost::{Layout, Unit};
use plan::{Op, Slice, UnitKind};

use super::assign::Assigned;
use super::dependence::{Dataflow, Phase};

/// A point in a rank's order: units first, then the order of the program within a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct When {
    pub during: During,
    /// An index into the program.
    pub index: usize,
    pub beside: Beside,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum During {
    /// Before the first micro-batch; the number is the length of the longest chain of messages that leads there.
    Begin(u32),
    /// The unit at this index of the rank's schedule.
    Unit(usize),
    /// After the last micro-batch; the number counts messages as for `Begin`.
    End(u32),
}

/// The position of an item beside an instruction: a receive stands before its first reader, a send after the last writer
/// of its values. A collective that sums over the step stands after the last writer as well (`Exchange`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Beside {
    Before,
    Itself,
    Exchange,
    After,
}

impl During {
    /// The unit's number in [`program::Turn::unit`].
    pub fn number(self) -> u32 {
        match self {
            Self::Begin(_) => 0,
            Self::Unit(at) => at as u32 + 1,
            Self::End(_) => u32::MAX,
        }
    }
}

impl When {
    pub const BEGIN: Self = Self { during: During::Begin(0), index: 0, beside: Beside::Before };
    pub const END: Self = Self { during: During::End(u32::MAX), index: usize::MAX, beside: Beside::After };

    /// The same, one unit earlier: a message is received while the unit before its reader computes.
    pub fn a_unit_earlier(self) -> Self {
        match self.during {
            During::Unit(at) => Self { during: During::Unit(at.saturating_sub(1)), index: 0, beside: Beside::Before },
            _ => Self { beside: Beside::Before, ..self },
        }
    }
}

/// By instruction: when the rank of its stage executes it; none for instructions that each rank executes for itself.
pub fn whens(flow: &Dataflow<'_>, assigned: &Assigned, orders: &[Vec<Unit>], layout: &Layout) -> Vec<Option<When>> {
    let levels = levels(flow, assigned, layout);
    let orders = orders.iter().flat_map(|order| order.iter().enumerate().map(|(at, &unit)| (unit, at)));
    let places: HashMap<Unit, usize> = orders.collect();
    let waits = if layout.kinds.contains(&UnitKind::Weights) { waits(flow, assigned) } else { vec![false; flow.len()] };
    let when = |i: usize| {
        let stage = assigned.stages[i]?;
        let end = During::End(levels[i]);
        let unit = |microbatch, kind| places.get(&Unit { stage, microbatch, kind }).map_or(end, |&at| During::Unit(at));
        let during = match flow.phases[i] {
            Phase::Before => During::Begin(levels[i]),
            Phase::Forward(m) => unit(m, UnitKind::Forward),
            Phase::Backward(m) if waits[i] => unit(m, UnitKind::Weights),
            Phase::Backward(m) => unit(m, UnitKind::Backward),
            Phase::After => end,
        };
        Some(When { during, index: i, beside: Beside::Itself })
    };
    let mut whens: Vec<Option<When>> = (0..flow.len()).map(when).collect();
    exchange_early(flow, assigned, &mut whens);
    whens
}

/// By instruction before or after the micro-batches: the length of the longest chain of messages between ranks that it
/// depends on there.
///
/// Values of one level on one rank do not depend on one another through other ranks, so one message can carry them.
fn levels(flow: &Dataflow<'_>, assigned: &Assigned, layout: &Layout) -> Vec<u32> {
    let rank = |stage: Option<usize>| stage.map(|stage| layout.rank_of[stage]);
    // By buffer: the part that makes it, and its level.
    let kept = flow.persistent().iter().map(|_| Some((Phase::Before, 0)));
    let mut made: Vec<Option<(Phase, u32)>> = kept.collect();
    made.resize(flow.buffers(), None);
    let mut level = |i: usize| {
        let phase = flow.phases[i];
        if !matches!(phase, Phase::Before | Phase::After) {
            return 0;
        }
        let needs = flow.reads(i).filter_map(|slice| {
            let (_, level) = made[slice.buffer.index()].filter(|(of, _)| *of == phase)?;
            let (from, to) = (rank(assigned.homes[slice.buffer.index()]), rank(assigned.stages[i]));
            Some(level + u32::from(from.is_some() && to.is_some() && from != to))
        });
        let level = needs.max().unwrap_or(0);
        for slice in flow.writes(i).filter(|slice| slice.buffer.index() >= flow.program.persistent) {
            let made = &mut made[slice.buffer.index()];
            let before = made.filter(|(of, _)| *of == phase).map_or(0, |(_, level)| level);
            *made = Some((phase, level.max(before)));
        }
        level
    };
    (0..flow.len()).map(&mut level).collect()
}

/// Moves a collective that follows the last micro-batch to the unit that writes its operands, so that it overlaps with the
/// units after it.
fn exchange_early(flow: &Dataflow<'_>, assigned: &Assigned, whens: &mut [Option<When>]) {
    let mut made: Vec<Option<When>> = vec![None; flow.buffers()];
    for (i, when) in whens.iter_mut().enumerate() {
        let Some(when) = when else { continue };
        let is_own = |s: Slice| assigned.homes[s.buffer.index()] == assigned.stages[i];
        if matches!(when.during, During::End(_)) && matches!(flow.op(i), Op::Collect(_)) && flow.reads(i).all(is_own) {
            let last = flow.reads(i).map(|s| made[s.buffer.index()]).max().flatten();
            if let Some(last) = last.filter(|last| matches!(last.during, During::Unit(_))) {
                *when = When { beside: Beside::Exchange, ..last };
            }
        }
        for slice in flow.writes(i) {
            let made = &mut made[slice.buffer.index()];
            *made = Some(*when).max(*made);
        }
    }
}

/// By instruction: whether it is part of a backward and no other stage depends on it: gradients of weights, which zb
/// schedules put into units of their own.
fn waits(flow: &Dataflow<'_>, assigned: &Assigned) -> Vec<bool> {
    let mut wanted = vec![false; flow.buffers()];
    for i in (0..flow.len()).filter(|&i| matches!(flow.phases[i], Phase::Backward(_))) {
        for slice in flow.reads(i) {
            let (made, read) = (assigned.homes[slice.buffer.index()], assigned.stages[i]);
            wanted[slice.buffer.index()] |= made.is_some() && read.is_some() && made != read;
        }
    }
    let mut waits = vec![false; flow.len()];
    for i in (0..flow.len()).rev().filter(|&i| matches!(flow.phases[i], Phase::Backward(_))) {
        if flow.writes(i).any(|s| wanted[s.buffer.index()]) {
            flow.reads(i).for_each(|s| wanted[s.buffer.index()] = true);
        } else {
            waits[i] = true;
        }
    }
    waits
}
