//! Pipeline schedules: in which turn each rank computes the forwards and backwards of its stages.
//!
//! A schedule is one function from a unit of work to its turn on its rank: what has the lesser turn must happen before.
//! [`Timeline::play`] proves that the ranks' orders together come to an end, and says when everything happens.

mod assign;
mod balance;
mod dependence;
mod partition;
mod placement;
mod send_recv;
mod units;

use std::ops::RangeInclusive;

use cost::{Layout, Timeline, Unit};
use diag::{Diagnostic, Diagnostics};
use plan::UnitKind;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use balance::balance;
pub use partition::Stages;

/// Stages on each rank: every rank has a program of its own, compiled on a thread of its own.
pub const MAX_CHUNKS: usize = 1024;

/// Declares the modules and the table of schedules.
macro_rules! schedules {
    ($($name:literal, $word:ident, $file:ident;)*) => {
        $(mod $file;)*

        /// Every schedule.
        pub static SCHEDULES: &[StageSchedule] = &[
            $(StageSchedule { name: $name, word: stringify!($word), rules: $file::RULES }),*
        ];
    };
}

include!("stages/table.rs");

/// A pipeline schedule: a row of the table.
#[derive(Debug)]
pub struct StageSchedule {
    /// As flags and pipelines have it.
    pub name: &'static str,
    /// As `.mm` files have it.
    pub word: &'static str,
    pub rules: Rules,
}

/// What a schedule's file says of it.
#[derive(Debug)]
pub struct Rules {
    /// Half a sentence for listings.
    pub summary: &'static str,
    /// Kinds of work that a stage has for a micro-batch.
    pub kinds: &'static [UnitKind],
    /// Stages of each rank.
    pub chunks: RangeInclusive<usize>,
    /// The rank that holds a stage.
    rank_of: fn(&Grid, usize) -> usize,
    turn: fn(&Grid, &Unit) -> Turn,
    /// Why it does not take a grid, by the schedule's name.
    refuse: fn(&Grid, &str) -> Option<Diagnostic>,
    /// What a step takes on the ideal machine, where a forward takes 1, and the gradients of inputs and of weights 1 each.
    pub length: fn(&Grid) -> usize,
    /// The most micro-batches, over all stages of a rank, that are forward and whose backward is not done.
    pub held: fn(&Grid, usize) -> usize,
}

/// What is to be ordered; each rank holds `chunks` stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    pub ranks: usize,
    pub chunks: usize,
    pub microbatches: usize,
}

/// When a unit comes on its rank: after all that have a lesser turn.
type Turn = (isize, isize);

impl Grid {
    pub fn stages(&self) -> usize {
        self.ranks * self.chunks
    }
}

impl StageSchedule {
    pub fn named(name: &str) -> Option<&'static Self> {
        SCHEDULES.iter().find(|schedule| schedule.name == name)
    }

    /// The one for so many stages on each rank, where no other is asked for.
    pub fn of_chunks(chunks: usize) -> &'static Self {
        SCHEDULES.iter().find(|schedule| schedule.rules.chunks.contains(&chunks)).unwrap_or(&SCHEDULES[0])
    }

    /// Stages on each rank: as many as asked for, else what the schedule fixes, else one.
    pub fn chunks(&self, asked: Option<usize>) -> usize {
        let (least, most) = (*self.rules.chunks.start(), *self.rules.chunks.end());
        asked.unwrap_or(if least == most { least } else { 1 })
    }

    /// Whether backwards leave the gradients of weights to units of their own.
    pub fn splits_backwards(&self) -> bool {
        self.rules.kinds.contains(&UnitKind::Weights)
    }

    pub fn layout(&self, grid: &Grid) -> Layout {
        Layout {
            ranks: grid.ranks,
            rank_of: (0..grid.stages()).map(|stage| (self.rules.rank_of)(grid, stage)).collect(),
            microbatches: grid.microbatches,
            kinds: self.rules.kinds.to_vec(),
        }
    }

    /// The units of each rank in their order.
    pub fn orders(&self, grid: &Grid) -> Result<Vec<Vec<Unit>>, Diagnostics> {
        self.check(grid)?;
        let layout = self.layout(grid);
        let order = |rank| {
            let mut order: Vec<Unit> = layout.units(rank).collect();
            order.sort_by_key(|unit| (self.rules.turn)(grid, unit));
            order
        };
        Ok((0..grid.ranks).map(order).collect())
    }

    /// The step on a machine where a forward takes 1 and messages no time.
    pub fn ideal(&self, grid: &Grid) -> Result<Timeline, Diagnostics> {
        let orders = self.orders(grid)?;
        let layout = self.layout(grid);
        let length = |unit: &Unit| layout.ideal_length(unit);
        Timeline::play(layout.clone(), &orders, length).map_err(|e| diag::Diagnostic::internal(e.to_string()).into())
    }

    /// Whether a pipeline can be so.
    pub fn check(&self, grid: &Grid) -> Result<(), Diagnostics> {
        let Grid { ranks, chunks, microbatches } = *grid;
        if ranks == 0 || chunks == 0 || microbatches == 0 {
            let message = format!("{ranks} ranks with {chunks} stages each, and {microbatches} micro-batches");
            return Err(Diagnostic::error(message).help("give 1 or more of each").into());
        }
        if !self.rules.chunks.contains(&chunks) {
            return Err(self.other_chunks(chunks).into());
        }
        (self.rules.refuse)(grid, self.name).map_or(Ok(()), |refused| Err(refused.into()))
    }

    fn other_chunks(&self, chunks: usize) -> Diagnostic {
        let (least, most) = (*self.rules.chunks.start(), *self.rules.chunks.end());
        let (name, other) = (self.name, Self::of_chunks(chunks).name);
        let message = match chunks {
            1 => format!("--schedule {name} with one stage on each rank"),
            _ => format!("--virtual-stages {chunks} with --schedule {name}"),
        };
        let error = Diagnostic::error(message);
        match (least, most) {
            (1, 1) => error.help(format!("give --schedule {other}, or leave --virtual-stages out")),
            (least, most) if least == most => {
                error.help(format!("it has {least}: leave --virtual-stages out, or give --schedule {other}"))
            }
            _ => error.help(format!("give --virtual-stages {least} or more, or --schedule {other}")),
        }
    }
}

impl PartialEq for StageSchedule {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for StageSchedule {}

impl Serialize for StageSchedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

impl<'de> Deserialize<'de> for &'static StageSchedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        StageSchedule::named(&name).ok_or_else(|| {
            let known: Vec<String> = SCHEDULES.iter().map(|schedule| format!("`{}`", schedule.name)).collect();
            de::Error::custom(format!("unknown schedule `{name}`, expected one of {}", known.join(", ")))
        })
    }
}
