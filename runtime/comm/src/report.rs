//! A report: which rank ended a run, who waited for whom in which collective, and where those who did not come are.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub cause: Cause,
    /// What the reporting rank waited in, followed by what the ranks it waited for waited in themselves.
    pub waiting: Vec<Waiting>,
    /// All ranks that are missing somewhere in `waiting`.
    pub missing: Vec<Missing>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// `rank` waited too long; `culprits` hold the others up, and if there are none, the ranks wait for each other.
    Stalled {
        rank: usize,
        waited: Duration,
        culprits: Vec<usize>,
    },
    Failed {
        rank: usize,
        why: String,
    },
    /// A rank ended while others still wanted it.
    Left {
        rank: usize,
    },
}

/// How a run ended before its time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum End {
    /// Each rank reports what it waited for itself.
    Cause(Cause),
    /// All ranks give the report of the one who noticed.
    Stalled(Arc<Report>),
}

/// A collective in which a rank waits, or a meeting of processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Of the collective; none for a meeting.
    pub id: Option<u32>,
    /// Operator and place of the collective, or what the missing have to do for the meeting.
    pub what: String,
    pub group: Vec<usize>,
    pub missing: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    pub rank: usize,
    pub standing: Standing,
}

/// Where a rank is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    NotStarted,
    /// Between two runs: loading, saving, or waiting for its feeds.
    Between {
        doing: String,
    },
    /// It has done its part, and waits for the other processes to do this.
    Meeting {
        what: String,
    },
    /// In a run. `busy` is a lane that neither waits for an event nor takes part in a collective.
    Running {
        run: String,
        lanes: Vec<LaneStanding>,
    },
    Failed {
        why: String,
    },
    Left,
    /// It was asked and did not answer.
    Silent,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneStanding {
    pub lane: String,
    /// The instruction and its place.
    pub at: String,
    /// It neither waits for an event nor takes part in a collective.
    pub busy: bool,
}

impl Report {
    /// The report of `rank`, which has waited for too long. `first` is what it waits in, and `ask` tells of any other rank
    /// where it is and what it waits in.
    pub(crate) fn stalled(
        (rank, waited): (usize, Duration),
        first: Vec<Waiting>,
        ask: impl FnMut(usize) -> (Standing, Vec<Waiting>),
    ) -> Self {
        let (waiting, missing, at_rest) = chain(first, ask);
        // Who does something of its own holds the others up; then who waits for nobody, since it is not even here.
        let busy: Vec<usize> = missing.iter().filter(|m| m.standing.is_busy()).map(|m| m.rank).collect();
        let culprits = if busy.is_empty() { at_rest } else { busy };
        Self { cause: Cause::Stalled { rank, waited, culprits }, waiting, missing }
    }

    /// What a rank that waits in `first` says when the run ended by `cause`.
    pub(crate) fn ended(cause: Cause, first: Vec<Waiting>, ask: impl FnMut(usize) -> (Standing, Vec<Waiting>)) -> Self {
        let (waiting, missing, _) = chain(first, ask);
        Self { cause, waiting, missing }
    }
}

/// What is waited for in `waiting`, in turn what the missing ranks wait for, and those of them that wait for nobody.
fn chain(
    mut waiting: Vec<Waiting>,
    mut ask: impl FnMut(usize) -> (Standing, Vec<Waiting>),
) -> (Vec<Waiting>, Vec<Missing>, Vec<usize>) {
    let (mut missing, mut at_rest) = (Vec::<Missing>::new(), Vec::new());
    let mut next = 0;
    while let Some(lacks) = waiting.get(next).map(|w| w.missing.clone()) {
        next += 1;
        for rank in lacks {
            if missing.iter().any(|m| m.rank == rank) {
                continue;
            }
            let (standing, waits) = ask(rank);
            missing.push(Missing { rank, standing });
            if waits.is_empty() {
                at_rest.push(rank);
            }
            for other in waits {
                // Only rank 0 knows who is missing in a meeting.
                let same = |w: &Waiting| w.id.is_some() || (&w.what, &w.missing) == (&other.what, &other.missing);
                if !waiting.iter().any(|w| w.id == other.id && w.group == other.group && same(w)) {
                    waiting.push(other);
                }
            }
        }
    }
    drop_guesses(&mut waiting, &mut missing);
    (waiting, missing, at_rest)
}

/// In a meeting, ranks wait for the answer of rank 0. Where rank 0 says for whom it waits itself, that is enough.
fn drop_guesses(waiting: &mut Vec<Waiting>, missing: &mut Vec<Missing>) {
    let known: Vec<String> =
        waiting.iter().filter(|w| w.id.is_none() && w.missing != [0]).map(|w| w.what.clone()).collect();
    waiting.retain(|w| w.id.is_some() || w.missing != [0] || !known.contains(&w.what));
    missing.retain(|m| waiting.iter().any(|w| w.missing.contains(&m.rank)));
}

impl Standing {
    /// Whether the rank does something of its own, instead of waiting for others.
    pub fn is_busy(&self) -> bool {
        match self {
            Standing::Running { lanes, .. } => lanes.iter().any(|l| l.busy),
            Standing::Meeting { .. } => false,
            _ => true,
        }
    }
}

impl std::error::Error for Report {}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Stalled { rank, waited, culprits } if culprits.is_empty() => {
                write!(f, "the ranks wait for each other: rank {rank} has waited {} s", waited.as_secs_f64())?;
            }
            Cause::Stalled { rank, waited, culprits } => {
                let verb = if culprits.len() == 1 { "holds" } else { "hold" };
                let waited = waited.as_secs_f64();
                write!(f, "{} {verb} up the others: rank {rank} has waited {waited} s", ranks(culprits))?;
            }
            Cause::Failed { rank, why } => write!(f, "rank {rank} failed: {why}")?,
            Cause::Left { rank } => write!(f, "rank {rank} has ended, and the others still need it")?,
        }
        for waiting in &self.waiting {
            let (group, missing) = (ranks(&waiting.group), ranks(&waiting.missing));
            match waiting.id {
                Some(id) => write!(f, "\n  collective c{id} of {group} waits for {missing}\n    {}", waiting.what)?,
                None => write!(f, "\n  the others wait for {missing} to {}", waiting.what)?,
            }
        }
        for Missing { rank, standing } in &self.missing {
            match standing {
                Standing::NotStarted => write!(f, "\n  rank {rank} has not started")?,
                Standing::Between { doing } => write!(f, "\n  rank {rank} is {doing}")?,
                Standing::Meeting { what } => write!(f, "\n  rank {rank} waits for the others to {what}")?,
                Standing::Failed { why } => write!(f, "\n  rank {rank} failed: {why}")?,
                Standing::Left => write!(f, "\n  rank {rank} has ended")?,
                Standing::Silent => write!(f, "\n  rank {rank} does not answer")?,
                Standing::Running { run, lanes } => {
                    write!(f, "\n  rank {rank} is in {run}")?;
                    let width = lanes.iter().map(|l| l.lane.len()).max().unwrap_or(0);
                    lanes.iter().try_for_each(|l| write!(f, "\n    {:<width$} at {}", l.lane, l.at))?;
                }
            }
        }
        if matches!(self.cause, Cause::Stalled { .. }) {
            write!(f, "\n  if they are slow and not stuck, allow more time")?;
        }
        Ok(())
    }
}

/// `rank 3`, `ranks 0, 2 and 3`.
pub(crate) fn ranks(ranks: &[usize]) -> String {
    let names: Vec<_> = ranks.iter().map(ToString::to_string).collect();
    match names.split_last() {
        None => "no ranks".into(),
        Some((last, [])) => format!("rank {last}"),
        Some((last, rest)) => format!("ranks {} and {last}", rest.join(", ")),
    }
}
