//! The decisions so far, and the live ranges of buffers under them.

use std::ops::Deref;

use plan::BufferId;
use smallvec::SmallVec;

use super::curve::Curve;
use super::facts::Facts;

const NEVER: u32 = u32::MAX;
/// The most instructions that one decision may recompute.
const MOST: usize = 48;

/// Values that are dropped or offloaded, and when they are needed again.
#[derive(Clone, Debug, PartialEq)]
pub struct Decisions {
    /// By instruction: the instruction before which it is executed again.
    again: Vec<u32>,
    /// By buffer: the instruction before which it is copied back from the host.
    host: Vec<u32>,
    /// By persistent buffer: whether it is in the host's memory.
    pub away: Vec<bool>,
}

impl Decisions {
    /// No decision: every value is kept.
    pub fn none(facts: &Facts) -> Self {
        let count = facts.bytes.len();
        Self { again: vec![NEVER; facts.len()], host: vec![NEVER; count], away: vec![false; facts.persistent] }
    }

    pub fn again(&self, instruction: usize) -> Option<u32> {
        Some(self.again[instruction]).filter(|at| *at != NEVER)
    }

    pub fn host(&self, buffer: usize) -> Option<u32> {
        Some(self.host[buffer]).filter(|at| *at != NEVER)
    }

    /// The instruction from which on readers of a buffer read its copy instead.
    pub fn moves(&self, facts: &Facts, buffer: usize) -> Option<u32> {
        self.host(buffer).or_else(|| self.again(facts.maker[buffer]? as usize))
    }

    pub fn make(&mut self, facts: &Facts, change: &Change) {
        for &(i, at) in &change.again {
            self.again[i as usize] = at;
            // What is made again need not come back.
            facts.writes(i as usize).for_each(|b| self.host[b.index()] = NEVER);
        }
        change.host.iter().for_each(|&(b, at)| self.host[b as usize] = at);
        change.away.iter().for_each(|&b| self.away[b as usize] = true);
    }
}

/// A possible decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Candidate {
    /// An instruction is executed again, before the next reader of its results.
    Again(u32),
    /// A value is offloaded to the host's memory.
    Host(u32),
    /// A persistent buffer is in the host's memory.
    Away(u32),
}

/// The changes of one decision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    again: SmallVec<[(u32, u32); 4]>,
    host: SmallVec<[(u32, u32); 1]>,
    away: SmallVec<[u32; 1]>,
    /// Seconds of recomputed instructions.
    pub seconds: f64,
}

type Spans = SmallVec<[(u32, u32); 2]>;

pub struct State<'f> {
    pub facts: &'f Facts,
    pub decisions: Decisions,
    spans: Vec<Spans>,
    curve: Curve,
}

impl Deref for State<'_> {
    type Target = Decisions;

    fn deref(&self) -> &Decisions {
        &self.decisions
    }
}

impl<'f> State<'f> {
    pub fn new(facts: &'f Facts, held: &[bool]) -> Self {
        let count = facts.bytes.len();
        let decisions = Decisions::none(facts);
        let mut state = Self { facts, decisions, spans: vec![], curve: Curve::new(facts.len() + 1) };
        let here = |b: &usize| held.get(*b).copied().unwrap_or(true);
        state.spans = (0..count).map(|b| if here(&b) { state.spans_of(b) } else { Spans::new() }).collect();
        for b in 0..count {
            for span in &state.spans[b] {
                state.curve.add(*span, facts.bytes[b] as i64);
            }
        }
        state
    }

    /// The peak, without persistent buffers other than moments, and its instruction.
    pub fn fullest(&self) -> (i64, u32) {
        self.curve.fullest()
    }

    pub fn covers(&self, buffer: usize, at: u32) -> bool {
        covers(&self.spans[buffer], at)
    }

    /// The live ranges of a buffer and of its copy.
    fn spans_of(&self, buffer: usize) -> Spans {
        let facts = self.facts;
        let end = facts.len() as u32;
        if facts.is_moment[buffer] {
            return if self.away[buffer] { Spans::new() } else { [(0, end)].into_iter().collect() };
        }
        let first = facts.uses(buffer).next();
        let Some(first) = first.filter(|_| buffer >= facts.persistent && !facts.is_passing[buffer]) else {
            return Spans::new();
        };
        let readers = facts.readers(BufferId::new(buffer));
        let again = readers.map(|r| self.decisions.again[r]).filter(|at| *at != NEVER);
        let all = || facts.uses(buffer).chain(again.clone());
        let Some(back) = self.moves(facts, buffer) else {
            return [(first, all().max().unwrap_or(first))].into_iter().collect();
        };
        let mut before = all().filter(|at| *at < back).max().unwrap_or(first);
        let after = all().filter(|at| *at >= back).max().unwrap_or(back);
        let mut begin = back;
        if self.host(buffer).is_some() {
            begin = facts.asked(back);
            before = before
                .max((facts.turn(facts.turn_of(first) + 1).end as u32).saturating_sub(1))
                .min(begin.saturating_sub(1));
        }
        [(first, before.max(first)), (begin, after)].into_iter().collect()
    }

    /// The changes of a decision. Operands that are dead by then are recomputed too if `deep`, as far as the same turn writes
    /// them; otherwise they are kept alive.
    pub fn change(&self, candidate: Candidate, deep: bool) -> Option<Change> {
        let facts = self.facts;
        let mut change = Change::default();
        match candidate {
            Candidate::Again(i) => {
                let at = self.returns(i)?;
                self.repeat(i, at, deep, &mut change)?;
            }
            Candidate::Host(b) => {
                let (_, at) = facts.gap(b as usize)?;
                let again = facts.readers(BufferId(b)).filter_map(|r| self.again(r));
                let at = again.fold(at, u32::min);
                let maker = facts.maker[b as usize]?;
                let there = self.again(maker as usize).is_none() && self.host(b as usize).is_none();
                if !there || !facts.can_wait(maker, at) {
                    return None;
                }
                change.host.push((b, at));
            }
            Candidate::Away(b) => {
                if self.away[b as usize] {
                    return None;
                }
                change.away.push(b);
            }
        }
        Some(change)
    }

    /// The instruction before which the results of another have to be recomputed; none if they have no gap between uses.
    pub fn returns(&self, i: u32) -> Option<u32> {
        let facts = self.facts;
        if !facts.can_repeat[i as usize] || self.again(i as usize).is_some() {
            return None;
        }
        // What is done again may read it earlier than what was there before.
        let again = facts.writes(i as usize).flat_map(|b| facts.readers(b)).filter_map(|r| self.again(r));
        let waits = facts.writes(i as usize).filter_map(|b| facts.gap(b.index())).map(|(_, at)| at).min()?;
        Some(again.fold(waits, u32::min))
    }

    fn repeat(&self, i: u32, at: u32, deep: bool, change: &mut Change) -> Option<()> {
        let facts = self.facts;
        let known = change.again.iter().position(|(of, _)| *of == i);
        let before = known.map(|k| change.again[k].1).or(self.again(i as usize));
        match (before, known) {
            (Some(before), _) if before <= at => return Some(()),
            (_, Some(k)) => change.again[k].1 = at,
            (before, None) => {
                change.again.push((i, at));
                change.seconds += if before.is_none() { facts.seconds[i as usize] } else { 0.0 };
            }
        }
        if change.again.len() > MOST {
            return None;
        }
        for b in facts.def_use.reads(i as usize).map(|slice| slice.buffer) {
            let (id, b) = (b.index(), b.0);
            if id < facts.persistent {
                // What it held then is gone if it is written meanwhile.
                let mut users = facts.def_use.users(BufferId(b)).iter();
                if users.any(|u| u.writes && i < u.instruction && u.instruction < at) {
                    return None;
                }
                continue;
            }
            if facts.is_passing[id] {
                continue;
            }
            let host = change.host.iter().find(|(of, _)| *of == b).map(|(_, at)| *at).or(self.host(id));
            if let Some(back) = host {
                if back > at {
                    if !facts.can_wait(facts.maker[id]?, at) {
                        return None;
                    }
                    change.host.retain(|(of, _)| *of != b);
                    change.host.push((b, at));
                }
                continue;
            }
            let maker = facts.maker[id];
            let repeated = |m: u32| change.again.iter().any(|(of, _)| *of == m) || self.again(m as usize).is_some();
            if let Some(maker) = maker.filter(|m| repeated(*m)) {
                self.repeat(maker, at, deep, change)?;
                continue;
            }
            if self.covers(id, at) {
                continue;
            }
            let near = |m: &u32| facts.can_repeat[*m as usize] && facts.turn_of(*m) == facts.turn_of(i);
            if let Some(maker) = maker.filter(|m| deep && near(m)) {
                self.repeat(maker, at, deep, change)?;
            }
        }
        Some(())
    }

    /// The buffers whose live ranges a change may affect.
    fn affected(&self, change: &Change) -> SmallVec<[u32; 24]> {
        let of = |i: u32| self.facts.def_use.touches(i as usize).iter().map(|(slice, _)| slice.buffer.0);
        let mut all: SmallVec<[u32; 24]> = change.again.iter().flat_map(|(i, _)| of(*i)).collect();
        all.extend(change.host.iter().map(|(b, _)| *b).chain(change.away.iter().copied()));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The bytes that a change saves at an instruction.
    pub fn saves(&mut self, change: &Change, at: u32) -> i64 {
        let before: SmallVec<[(u32, u32); 8]> =
            change.again.iter().map(|(i, _)| (*i, self.decisions.again[*i as usize])).collect();
        let written = change.again.iter().flat_map(|(i, _)| self.facts.writes(*i as usize)).map(|b| b.0);
        let host: SmallVec<[(u32, u32); 8]> =
            change.host.iter().map(|(b, _)| *b).chain(written).map(|b| (b, self.decisions.host[b as usize])).collect();
        self.decisions.make(self.facts, change);
        let saved = self.affected(change).into_iter().map(|b| {
            let held = |covers: bool| if covers { self.facts.bytes[b as usize] as i64 } else { 0 };
            held(self.covers(b as usize, at)) - held(covers(&self.spans_of(b as usize), at))
        });
        let saved = saved.sum();
        before.iter().for_each(|(i, at)| self.decisions.again[*i as usize] = *at);
        host.iter().for_each(|(b, at)| self.decisions.host[*b as usize] = *at);
        change.away.iter().for_each(|b| self.decisions.away[*b as usize] = false);
        saved
    }

    pub fn decide(&mut self, change: &Change) {
        self.decisions.make(self.facts, change);
        for b in self.affected(change) {
            let (b, bytes) = (b as usize, self.facts.bytes[b as usize] as i64);
            let new = self.spans_of(b);
            for span in std::mem::replace(&mut self.spans[b], new) {
                self.curve.add(span, -bytes);
            }
            for span in self.spans[b].clone() {
                self.curve.add(span, bytes);
            }
        }
    }
}

fn covers(spans: &Spans, at: u32) -> bool {
    spans.iter().any(|(first, last)| *first <= at && at <= *last)
}
