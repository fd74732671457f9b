//! Pipeline schedules: in which turn each rank computes the forwards and backwards of its stages.
//!
//! A schedule is one function from a unit of work to its turn on its rank: what has the lesser turn must happen before.
//! `Timeline::play` proves that the ranks' orders together come to an end, and says when everything happens.

mod assign;
mod balance;
mod dependence;
mod gpipe;
mod interleaved;
mod one_f_one_b;
mod partition;
mod send_recv;
mod timeline;
mod units;
mod zb_h1;

use diag::{Diagnostic, Diagnostics};
use serde::{Deserialize, Serialize};

pub use balance::balance;
pub use partition::Stages;
pub use plan::UnitKind;
pub use program::Unit;
pub use timeline::{Invalid, Span, Timeline};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StageSchedule {
    #[serde(rename = "gpipe")]
    Gpipe,
    #[serde(rename = "1f1b")]
    OneFOneB,
    #[serde(rename = "interleaved")]
    Interleaved,
    #[serde(rename = "zb-h1")]
    ZbH1,
}

/// What is to be ordered. Stage `s` lies on rank `s % ranks`, so that each rank holds `chunks` stages.
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

    /// What is to be done on a rank, sorted.
    fn units(self, rank: usize, kinds: &[UnitKind]) -> impl Iterator<Item = Unit> {
        let stages = (rank..self.stages()).step_by(self.ranks);
        let microbatches = move |stage| (0..self.microbatches).map(move |microbatch| (stage, microbatch));
        stages
            .flat_map(microbatches)
            .flat_map(move |(stage, microbatch)| kinds.iter().map(move |&kind| Unit { stage, microbatch, kind }))
    }
}

impl StageSchedule {
    pub const ALL: [Self; 4] = [Self::Gpipe, Self::OneFOneB, Self::Interleaved, Self::ZbH1];

    pub fn name(self) -> &'static str {
        match self {
            Self::Gpipe => "gpipe",
            Self::OneFOneB => "1f1b",
            Self::Interleaved => "interleaved",
            Self::ZbH1 => "zb-h1",
        }
    }

    /// What a stage does for a micro-batch.
    pub fn kinds(self) -> &'static [UnitKind] {
        match self {
            Self::ZbH1 => &[UnitKind::Forward, UnitKind::Backward, UnitKind::Weights],
            _ => &[UnitKind::Forward, UnitKind::Backward],
        }
    }

    /// The units of each rank in their order.
    pub fn orders(self, grid: &Grid) -> Result<Vec<Vec<Unit>>, Diagnostics> {
        self.check(grid)?;
        let order = |rank| {
            let mut order: Vec<Unit> = grid.units(rank, self.kinds()).collect();
            order.sort_by_key(|unit| self.turn(grid, unit));
            order
        };
        Ok((0..grid.ranks).map(order).collect())
    }

    fn turn(self, grid: &Grid, unit: &Unit) -> Turn {
        match self {
            Self::Gpipe => gpipe::turn(unit),
            Self::OneFOneB => one_f_one_b::turn(grid, unit),
            Self::Interleaved => interleaved::turn(grid, unit),
            Self::ZbH1 => zb_h1::turn(grid, unit),
        }
    }

    fn check(self, grid: &Grid) -> Result<(), Diagnostics> {
        let Grid { ranks, chunks, microbatches } = *grid;
        if ranks == 0 || chunks == 0 || microbatches == 0 {
            let message = format!("{ranks} ranks with {chunks} stages each, and {microbatches} micro-batches");
            return Err(Diagnostic::error(message).help("give 1 or more of each").into());
        }
        let name = self.name();
        match self {
            Self::Interleaved if chunks == 1 => {
                Err(Diagnostic::error("--schedule interleaved with one stage on each rank")
                    .help("give --virtual-stages 2 or more, or --schedule 1f1b")
                    .into())
            }
            Self::Interleaved if !microbatches.is_multiple_of(ranks) => Err(Diagnostic::error(format!(
                "--schedule interleaved takes micro-batches in rounds of --pp {ranks}, which does not divide {microbatches}"
            ))
            .help(format!("give --microbatches {ranks} or a multiple of it"))
            .into()),
            Self::Interleaved => Ok(()),
            _ if chunks > 1 => Err(Diagnostic::error(format!("--virtual-stages {chunks} with --schedule {name}"))
                .help("give --schedule interleaved, or leave --virtual-stages out")
                .into()),
            _ => Ok(()),
        }
    }
}
