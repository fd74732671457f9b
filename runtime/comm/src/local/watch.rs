//! The watchdog: what a rank that waited in vain finds out about those who did not come.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::meeting::Meeting;
use super::{Rank, World};
use crate::report::End;
use crate::{Cause, Report, Standing, Waiting};

impl World {
    /// Ends the run: the patience of `rank` in `meeting` is over.
    pub fn late(&self, rank: usize, meeting: &Meeting) {
        let first = self.waiting(meeting).into_iter().collect();
        let waited = self.patience.unwrap_or_default();
        let report = Report::stalled((rank, waited), first, |rank| self.ask(rank));
        self.end(End::Stalled(Arc::new(report)));
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
                let first = meeting.and_then(|m| self.waiting(m)).into_iter().collect();
                Arc::new(Report::ended(cause.clone(), first, |rank| self.ask(rank)))
            }
        }
    }

    /// Where a rank is, and what it waits in.
    fn ask(&self, rank: usize) -> (Standing, Vec<Waiting>) {
        let meetings = self.meetings();
        let waiting = meetings.values().filter(|m| waits(m, rank)).filter_map(|m| self.waiting(m)).collect();
        (self.standing(rank), waiting)
    }

    fn waiting(&self, meeting: &Meeting) -> Option<Waiting> {
        let awaited = meeting.awaited()?;
        let by =
            |wanted: bool| meeting.members.iter().zip(&awaited).filter(move |(_, a)| **a == wanted).map(|(r, _)| *r);
        let missing: Vec<_> = by(true).collect();
        let teller = by(false).find_map(|rank| self.ranks[rank].whereabouts.get());
        let what = teller.map(|w| w.collective(meeting.id)).unwrap_or_default();
        (!missing.is_empty()).then(|| Waiting { id: Some(meeting.id), what, group: meeting.members.clone(), missing })
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
