//! The timeline of a pipeline schedule: when each rank computes what on a machine where messages take no time.

use std::collections::HashMap;
use std::fmt;

use thiserror::Error;

use super::{Grid, Unit, UnitKind};

/// The spans of each rank, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    grid: Grid,
    pub ranks: Vec<Vec<Span>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub unit: Unit,
    pub start: u64,
    pub end: u64,
}

/// Why orders are no schedule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Invalid {
    #[error("rank {rank} does not compute each of its units once, and no others")]
    Units { rank: usize },
    #[error("ranks wait for each other; they would go on with {}", listed(.0))]
    Stuck(Vec<Unit>),
}

impl Timeline {
    /// Plays the orders of all ranks, each unit as soon as its rank is free and what it needs is there. `length` says
    /// how long a unit takes. This is the one check of a schedule: that each rank computes each of its units once, and
    /// that no rank waits for ever.
    pub fn play(
        grid: Grid,
        kinds: &[UnitKind],
        orders: &[Vec<Unit>],
        length: impl Fn(&Unit) -> u64,
    ) -> Result<Self, Invalid> {
        check(&grid, kinds, orders)?;
        let mut ends: HashMap<Unit, u64> = HashMap::new();
        let mut ranks: Vec<Vec<Span>> = vec![vec![]; grid.ranks];
        loop {
            let mut moved = false;
            for (spans, order) in ranks.iter_mut().zip(orders) {
                while let Some(&unit) = order.get(spans.len()) {
                    let free = spans.last().map_or(0, |span| span.end);
                    let Some(ready) = ready(&grid, &unit, &ends) else { break };
                    let start = free.max(ready);
                    let end = start + length(&unit);
                    spans.push(Span { unit, start, end });
                    ends.insert(unit, end);
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        let stuck: Vec<Unit> = ranks.iter().zip(orders).filter_map(|(s, o)| o.get(s.len()).copied()).collect();
        if stuck.is_empty() { Ok(Self { grid, ranks }) } else { Err(Invalid::Stuck(stuck)) }
    }

    /// The time from the first start to the last end.
    pub fn length(&self) -> u64 {
        self.ranks.iter().filter_map(|spans| spans.last()).map(|span| span.end).max().unwrap_or(0)
    }

    /// The time in which ranks compute nothing, summed over ranks.
    pub fn idle(&self) -> u64 {
        let busy: u64 = self.ranks.iter().flatten().map(|span| span.end - span.start).sum();
        self.length() * self.grid.ranks as u64 - busy
    }

    /// The share of all ranks' time in which they compute nothing.
    pub fn bubble(&self) -> f64 {
        self.idle() as f64 / (self.length() * self.grid.ranks as u64).max(1) as f64
    }
}

fn check(grid: &Grid, kinds: &[UnitKind], orders: &[Vec<Unit>]) -> Result<(), Invalid> {
    for rank in 0..orders.len().max(grid.ranks) {
        let mut found = orders.get(rank).cloned().unwrap_or_default();
        found.sort();
        if rank >= grid.ranks || !grid.units(rank, kinds).eq(found) {
            return Err(Invalid::Units { rank });
        }
    }
    Ok(())
}

/// When all that a unit needs is there; nothing while some of it is still to come.
fn ready(grid: &Grid, unit: &Unit, ends: &HashMap<Unit, u64>) -> Option<u64> {
    let Unit { stage, microbatch, kind } = *unit;
    let end = |stage, kind| ends.get(&Unit { stage, microbatch, kind }).copied();
    match kind {
        UnitKind::Forward if stage == 0 => Some(0),
        UnitKind::Forward => end(stage - 1, UnitKind::Forward),
        UnitKind::Backward if stage + 1 == grid.stages() => end(stage, UnitKind::Forward),
        UnitKind::Backward => Some(end(stage, UnitKind::Forward)?.max(end(stage + 1, UnitKind::Backward)?)),
        UnitKind::Weights => end(stage, UnitKind::Backward),
    }
}

/// One line for each stage, those of a rank together; a column for each moment. A unit is its kind and micro-batch, and
/// `-` for as long as it goes on.
impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = 1 + (self.grid.microbatches - 1).to_string().len();
        for (rank, spans) in self.ranks.iter().enumerate() {
            for stage in (rank..self.grid.stages()).step_by(self.grid.ranks) {
                let mut line = if stage == rank { format!("rank {rank:<3}") } else { " ".repeat(8) };
                if self.grid.chunks > 1 {
                    line.push_str(&format!("stage {stage:<3}"));
                }
                let mut now = 0;
                for span in spans.iter().filter(|span| span.unit.stage == stage) {
                    line.push_str(&" ".repeat(width * (span.start - now) as usize));
                    let name = format!("{}{}", span.unit.kind.letter(), span.unit.microbatch);
                    line.push_str(&format!("{name:-<0$}", width * (span.end - span.start) as usize));
                    now = span.end;
                }
                writeln!(f, "{}", line.trim_end())?;
            }
        }
        Ok(())
    }
}

fn listed(units: &[Unit]) -> String {
    let name = |u: &Unit| format!("{}{} of stage {}", u.kind.letter(), u.microbatch, u.stage);
    units.iter().map(name).collect::<Vec<_>>().join(", ")
}
