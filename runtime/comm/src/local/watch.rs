//! The watchdog: what a rank that waited in vain finds out about those who did not come.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::meeting::Meeting;
use super::{Rank, World};
use crate::{Cause, Missing, Report, Standing, Waiting};

/// How a run ended before its time.
pub enum End {
    /// Each rank reports what it waited for itself.
    Cause(Cause),
    /// All ranks give the report of the one who noticed.
    Stalled(Arc<Report>),
}

impl World {
    /// Ends the run: the patience of `rank` in `meeting` is over.
    pub fn late(&self, rank: usize, meeting: &Meeting) {
        let (waiting, missing) = self.chain(meeting);
        // Who does something of its own holds the others up; then who waits for nobody, since it is not even here.
        let waits = |m: &Missing| self.meetings().values().any(|other| waits(other, m.rank));
        let pick = |of: &dyn Fn(&Missing) -> bool| -> Vec<usize> {
            missing.iter().filter(|m| of(m)).map(|m| m.rank).collect()
        };
        let busy = pick(&|m| m.standing.is_busy());
        let culprits = if busy.is_empty() { pick(&|m| !waits(m)) } else { busy };
        let waited = self.patience.unwrap_or_default();
        let cause = Cause::Stalled { rank, waited, culprits };
        self.end(End::Stalled(Arc::new(Report { cause, waiting, missing })));
    }

    /// The report of a rank that waits in `meeting`, or in none, after a member left or the run ended.
    pub fn report(&self, meeting: Option<&Meeting>) -> Arc<Report> {
        let end = self.end.get().unwrap_or_else(|| {
            let left = |rank: &&usize| self.ranks[**rank].left.load(SeqCst);
            let rank = meeting.and_then(|m| m.members.iter().find(left)).copied().unwrap_or_default();
            self.end(End::Cause(Cause::Left { rank }))
        });
        match end {
            End::Stalled(report) => report.clone(),
            End::Cause(cause) => {
                let (waiting, missing) = meeting.map(|m| self.chain(m)).unwrap_or_default();
                Arc::new(Report { cause: cause.clone(), waiting, missing })
            }
        }
    }

    /// What is waited for in `meeting`, and in turn what the missing ranks wait for.
    fn chain(&self, meeting: &Meeting) -> (Vec<Waiting>, Vec<Missing>) {
        let (mut waiting, mut missing) = (Vec::new(), Vec::<Missing>::new());
        waiting.extend(self.waiting(meeting));
        let mut next = 0;
        while let Some(lacks) = waiting.get(next).map(|w: &Waiting| w.missing.clone()) {
            next += 1;
            for rank in lacks {
                if missing.iter().any(|m| m.rank == rank) {
                    continue;
                }
                missing.push(Missing { rank, standing: self.standing(rank) });
                for other in self.meetings().values().filter(|m| waits(m, rank)) {
                    let known = waiting.iter().any(|w| w.id == other.id && w.group == other.members);
                    waiting.extend(self.waiting(other).filter(|_| !known));
                }
            }
        }
        (waiting, missing)
    }

    fn waiting(&self, meeting: &Meeting) -> Option<Waiting> {
        let awaited = meeting.awaited()?;
        let by =
            |wanted: bool| meeting.members.iter().zip(&awaited).filter(move |(_, a)| **a == wanted).map(|(r, _)| *r);
        let missing: Vec<_> = by(true).collect();
        let teller = by(false).find_map(|rank| self.ranks[rank].whereabouts.get());
        let what = teller.map(|w| w.collective(meeting.id)).unwrap_or_default();
        (!missing.is_empty()).then(|| Waiting { id: meeting.id, what, group: meeting.members.clone(), missing })
    }

    fn standing(&self, rank: usize) -> Standing {
        if let Some(End::Cause(Cause::Failed { rank: failed, why })) = self.end.get()
            && *failed == rank
        {
            return Standing::Failed { why: why.clone() };
        }
        let Rank { whereabouts, left } = &self.ranks[rank];
        match whereabouts.get() {
            _ if left.load(SeqCst) => Standing::Left,
            Some(whereabouts) => whereabouts.standing(),
            None => Standing::NotStarted,
        }
    }
}

/// Whether `rank` has come to a meeting that has not taken place.
fn waits(meeting: &Meeting, rank: usize) -> bool {
    let position = meeting.members.iter().position(|m| *m == rank);
    position.is_some_and(|p| meeting.awaited().is_some_and(|awaited| !awaited[p]))
}
