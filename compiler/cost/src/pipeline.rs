//! The timeline of a pipeline: when each rank computes which stage's work on which micro-batch, played or predicted.

use std::collections::HashMap;
use std::fmt;
use std::iter::repeat;

use plan::UnitKind;
use thiserror::Error;

use crate::{Lane, Run};

/// One stage's work on one micro-batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Unit {
    pub stage: usize,
    pub microbatch: usize,
    pub kind: UnitKind,
}

/// The work of a pipeline in a step: its stages, micro-batches and ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub ranks: usize,
    /// The rank of each stage.
    pub rank_of: Vec<usize>,
    pub microbatches: usize,
    /// Kinds of work that a stage has for a micro-batch.
    pub kinds: Vec<UnitKind>,
}

impl Layout {
    /// The stages of a rank.
    pub fn stages(&self, rank: usize) -> impl Iterator<Item = usize> {
        (0..self.rank_of.len()).filter(move |stage| self.rank_of[*stage] == rank)
    }

    /// The work of a rank, sorted.
    pub fn units(&self, rank: usize) -> impl Iterator<Item = Unit> {
        let microbatches = |stage| (0..self.microbatches).map(move |microbatch| (stage, microbatch));
        self.stages(rank)
            .flat_map(microbatches)
            .flat_map(|(stage, microbatch)| self.kinds.iter().map(move |&kind| Unit { stage, microbatch, kind }))
    }

    /// On a machine where a forward takes 1: what a unit takes, where a backward without `Weights` is two backwards in one.
    pub fn ideal_length(&self, unit: &Unit) -> f64 {
        let is_double = unit.kind == UnitKind::Backward && !self.kinds.contains(&UnitKind::Weights);
        if is_double { 2.0 } else { 1.0 }
    }
}

/// A unit and when it is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnitSpan {
    pub unit: Unit,
    pub start: f64,
    pub end: f64,
}

/// The spans of each rank, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    pub layout: Layout,
    pub ranks: Vec<Vec<UnitSpan>>,
}

/// Why orders are no schedule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Invalid {
    #[error("rank {rank} does not compute each of its units once, and no others")]
    Units { rank: usize },
    #[error("ranks wait for each other; they would go on with {}", listed(.0))]
    Deadlock(Vec<Unit>),
}

impl Timeline {
    /// Plays the orders of all ranks on a machine where messages take no time: each unit starts as soon as its rank is free
    /// and what it needs is there. `length` says how long a unit takes. This is the one check of a schedule: that each rank
    /// computes each of its units once, and that no rank waits for ever.
    pub fn play(layout: Layout, orders: &[Vec<Unit>], length: impl Fn(&Unit) -> f64) -> Result<Self, Invalid> {
        check(&layout, orders)?;
        let mut ends: HashMap<Unit, f64> = HashMap::new();
        let mut ranks: Vec<Vec<UnitSpan>> = vec![vec![]; layout.ranks];
        let mut lanes = vec![Lane::default(); layout.ranks];
        loop {
            let mut moved = false;
            for ((spans, lane), order) in ranks.iter_mut().zip(&mut lanes).zip(orders) {
                while let Some(&unit) = order.get(spans.len()) {
                    let Some(ready) = ready(&layout, &unit, &ends) else { break };
                    let Run { begin: start, end, .. } = lane.run(ready, length(&unit));
                    spans.push(UnitSpan { unit, start, end });
                    ends.insert(unit, end);
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        let waiting = ranks.iter().zip(orders).filter_map(|(spans, order)| order.get(spans.len()).copied());
        let waiting: Vec<Unit> = waiting.collect();
        if waiting.is_empty() { Ok(Self { layout, ranks }) } else { Err(Invalid::Deadlock(waiting)) }
    }

    /// The time from the first start to the last end.
    pub fn length(&self) -> f64 {
        self.ranks.iter().filter_map(|spans| spans.last()).map(|span| span.end).fold(0.0, f64::max)
    }

    /// The time in which ranks compute nothing, summed over ranks.
    pub fn idle(&self) -> f64 {
        let busy: f64 = self.ranks.iter().flatten().map(|span| span.end - span.start).sum();
        self.length() * self.ranks.len() as f64 - busy
    }

    /// The share of all ranks' time in which they compute nothing.
    pub fn bubble(&self) -> f64 {
        let whole = self.length() * self.ranks.len() as f64;
        if whole > 0.0 { self.idle() / whole } else { 0.0 }
    }

    /// Columns in which each unit of length 1 has room for its name.
    pub fn columns(&self) -> usize {
        let digits = self.layout.microbatches.saturating_sub(1).to_string().len();
        self.length() as usize * (1 + digits)
    }

    /// One line for each stage, those of a rank together. A unit is its kind and micro-batch, and `-` for as long as it goes
    /// on; the time `whole` takes all columns.
    pub fn draw(&self, whole: f64, columns: usize) -> String {
        let column = |time: f64| (time / whole * columns as f64).round() as usize;
        let mut out = String::new();
        for (rank, spans) in self.ranks.iter().enumerate() {
            let stages: Vec<usize> = self.layout.stages(rank).collect();
            for (i, stage) in stages.iter().enumerate() {
                let mut line = vec![' '; columns + 1];
                for span in spans.iter().filter(|span| span.unit.stage == *stage) {
                    let (start, end) = (column(span.start), column(span.end));
                    let name = format!("{}{}", span.unit.kind.letter(), span.unit.microbatch);
                    let shown = if name.len() <= end - start { name.as_str() } else { &name[..1] };
                    for (cell, letter) in line[start..end].iter_mut().zip(shown.chars().chain(repeat('-'))) {
                        *cell = letter;
                    }
                }
                let who = if i == 0 { format!("pp {rank}") } else { String::new() };
                let which = if stages.len() > 1 { format!("stage {stage:<3} ") } else { String::new() };
                let line: String = line.into_iter().collect();
                out.push_str(format!("{who:<6} {which}{line}").trim_end());
                out.push('\n');
            }
        }
        out
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.draw(self.length(), self.columns()))
    }
}

fn check(layout: &Layout, orders: &[Vec<Unit>]) -> Result<(), Invalid> {
    for rank in 0..orders.len().max(layout.ranks) {
        let mut found = orders.get(rank).cloned().unwrap_or_default();
        found.sort();
        if rank >= layout.ranks || !layout.units(rank).eq(found) {
            return Err(Invalid::Units { rank });
        }
    }
    Ok(())
}

/// When all that a unit needs is there; nothing while some of it is still to come.
fn ready(layout: &Layout, unit: &Unit, ends: &HashMap<Unit, f64>) -> Option<f64> {
    let Unit { stage, microbatch, kind } = *unit;
    let end = |stage, kind| ends.get(&Unit { stage, microbatch, kind }).copied();
    match kind {
        UnitKind::Forward if stage == 0 => Some(0.0),
        UnitKind::Forward => end(stage - 1, UnitKind::Forward),
        UnitKind::Backward if stage + 1 == layout.rank_of.len() => end(stage, UnitKind::Forward),
        UnitKind::Backward => Some(f64::max(end(stage, UnitKind::Forward)?, end(stage + 1, UnitKind::Backward)?)),
        UnitKind::Weights => end(stage, UnitKind::Backward),
    }
}

fn listed(units: &[Unit]) -> String {
    let name = |u: &Unit| format!("{}{} of stage {}", u.kind.letter(), u.microbatch, u.stage);
    units.iter().map(name).collect::<Vec<_>>().join(", ")
}
