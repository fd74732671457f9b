//! When a rank does what: the units of work on micro-batches in the order of a schedule.

use std::collections::HashMap;

use super::assign::Assigned;
use super::program::{Part, Written};
use crate::stages::{Kind, Unit};

/// When something is done on a rank: by unit and, within one, in the order of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct When {
    pub during: During,
    /// An index into the program.
    pub index: usize,
    pub beside: Beside,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum During {
    /// Before the first micro-batch.
    Begin,
    /// The unit at this place of the rank's order.
    Unit(usize),
    /// After the last micro-batch.
    End,
}

/// Messages stand beside instructions: a receive before the first that reads it, a send after the last that makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Beside {
    Before,
    Itself,
    After,
}

impl During {
    /// By which units are told apart.
    pub fn number(self) -> u32 {
        match self {
            Self::Begin => 0,
            Self::Unit(at) => at as u32 + 1,
            Self::End => u32::MAX,
        }
    }
}

impl When {
    pub const BEGIN: Self = Self { during: During::Begin, index: 0, beside: Beside::Before };
    pub const END: Self = Self { during: During::End, index: usize::MAX, beside: Beside::After };

    /// A unit earlier, so that what comes from another rank travels while this one works.
    pub fn a_unit_earlier(self) -> Self {
        match self.during {
            During::Unit(at) => Self { during: During::Unit(at.saturating_sub(1)), index: 0, beside: Beside::Before },
            _ => Self { beside: Beside::Before, ..self },
        }
    }
}

/// By instruction: when the rank of its stage does it; none for what each rank does for itself.
pub fn whens(written: &Written<'_>, assigned: &Assigned, orders: &[Vec<Unit>], kinds: &[Kind]) -> Vec<Option<When>> {
    let orders = orders.iter().flat_map(|order| order.iter().enumerate().map(|(at, &unit)| (unit, at)));
    let places: HashMap<Unit, usize> = orders.collect();
    let waits = if kinds.contains(&Kind::Weights) { waits(written, assigned) } else { vec![false; written.len()] };
    let when = |i: usize| {
        let stage = assigned.stages[i]?;
        let unit = |microbatch, kind| {
            places.get(&Unit { stage, microbatch, kind }).map_or(During::End, |&place| During::Unit(place))
        };
        let during = match written.parts[i] {
            Part::Before => During::Begin,
            Part::Forward(m) => unit(m, Kind::Forward),
            Part::Backward(m) if waits[i] => unit(m, Kind::Weights),
            Part::Backward(m) => unit(m, Kind::Backward),
            Part::After => During::End,
        };
        Some(When { during, index: i, beside: Beside::Itself })
    };
    (0..written.len()).map(when).collect()
}

/// By instruction: whether it is of a backward and no other stage waits for it, be it for the gradients of its inputs.
fn waits(written: &Written<'_>, assigned: &Assigned) -> Vec<bool> {
    let mut wanted = vec![false; written.buffers()];
    for i in (0..written.len()).filter(|&i| matches!(written.parts[i], Part::Backward(_))) {
        for slice in written.reads(i) {
            let (made, read) = (assigned.homes[slice.buffer.index()], assigned.stages[i]);
            wanted[slice.buffer.index()] |= made.is_some() && read.is_some() && made != read;
        }
    }
    let mut waits = vec![false; written.len()];
    for i in (0..written.len()).rev().filter(|&i| matches!(written.parts[i], Part::Backward(_))) {
        if written.writes(i).any(|s| wanted[s.buffer.index()]) {
            written.reads(i).for_each(|s| wanted[s.buffer.index()] = true);
        } else {
            waits[i] = true;
        }
    }
    waits
}
