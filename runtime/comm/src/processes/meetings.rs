//! Meetings: what processes give each other under a name, and who has not come to it. Rank 0 keeps the list.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::Waiting;

#[derive(Default)]
pub struct Meetings {
    /// Of rank 0: meetings to which not all have come.
    open: BTreeMap<String, Open>,
    /// What all gave, until it is taken.
    done: BTreeMap<String, Vec<Vec<u8>>>,
    /// Where this rank waits.
    waits: BTreeSet<String>,
    /// Of rank 0: when each rank gave the last sign of work.
    worked: BTreeMap<usize, Instant>,
    /// When rank 0 last said that it waits for others who work.
    watched: Option<Instant>,
}

struct Open {
    since: Instant,
    /// The rank that came first.
    first: usize,
    given: BTreeMap<usize, Vec<u8>>,
}

impl Meetings {
    pub fn wait_in(&mut self, what: &str) {
        self.waits.insert(what.into());
    }

    /// Of rank 0: takes what a rank gives; gives what all gave once all have.
    pub fn give(&mut self, what: &str, rank: usize, bytes: Vec<u8>, world: usize) -> Option<Vec<Vec<u8>>> {
        let new = || Open { since: Instant::now(), first: rank, given: BTreeMap::new() };
        let open = self.open.entry(what.into()).or_insert_with(new);
        open.given.insert(rank, bytes);
        if open.given.len() < world {
            return None;
        }
        self.open.remove(what).map(|open| open.given.into_values().collect())
    }

    pub fn finish(&mut self, what: String, all: Vec<Vec<u8>>) {
        self.done.insert(what, all);
    }

    /// What all gave, if all have.
    pub fn take(&mut self, what: &str) -> Option<Vec<Vec<u8>>> {
        let all = self.done.remove(what)?;
        self.waits.remove(what);
        Some(all)
    }

    /// What this rank waits for the others to do, if it does.
    pub fn waits_for(&self) -> Option<&str> {
        self.waits.first().map(String::as_str)
    }

    /// Of rank 0: whether some have come to a meeting, and not all.
    pub fn is_open(&self, what: &str) -> bool {
        self.open.contains_key(what)
    }

    /// The meetings in which `rank` waits. All but rank 0 wait for rank 0 to answer.
    pub fn waiting(&self, rank: usize, world: usize) -> Vec<Waiting> {
        if rank == 0 {
            let came = self.open.iter().filter(|(_, open)| open.given.contains_key(&0));
            return came.map(|(what, open)| open.waiting(what, world)).collect();
        }
        let waiting = |what: &String| Waiting { id: None, what: what.clone(), group: all(world), missing: vec![0] };
        self.waits.iter().map(waiting).collect()
    }

    /// Of rank 0: the ranks that have not come to some meeting.
    pub fn missing(&self, world: usize) -> impl Iterator<Item = usize> {
        let all = self.open.values().flat_map(move |open| open.waiting("", world).missing);
        all.collect::<BTreeSet<_>>().into_iter()
    }

    /// Of rank 0: a rank got on with what it does by itself.
    pub fn work(&mut self, rank: usize) {
        self.worked.insert(rank, Instant::now());
    }

    /// Rank 0 waits for others who work.
    pub fn watch(&mut self) {
        self.watched = Some(Instant::now());
    }

    /// Whether rank 0 has not said for so long that it waits for others.
    pub fn is_unwatched(&self, patience: Duration) -> bool {
        self.watched.is_none_or(|at| at.elapsed() > patience)
    }

    /// Of rank 0: whether a first rank has waited for `patience` in some meeting, for whatever reason.
    pub fn is_long(&self, patience: Duration) -> bool {
        self.open.values().any(|open| open.since.elapsed() > patience)
    }

    /// Of rank 0: the meeting whose first rank has waited for `patience`, with that rank. Missing are those who have not
    /// come and gave no sign of work for as long.
    pub fn late(&self, patience: Duration, world: usize) -> Option<(usize, Waiting)> {
        let idle = |rank: &usize| self.worked.get(rank).is_none_or(|at| at.elapsed() > patience);
        let late = self.open.iter().filter(|(_, open)| open.since.elapsed() > patience);
        let mut late = late.map(|(what, open)| (open.first, open.waiting(what, world)));
        late.find_map(|(first, mut waiting)| {
            waiting.missing.retain(idle);
            (!waiting.missing.is_empty()).then_some((first, waiting))
        })
    }
}

impl Open {
    fn waiting(&self, what: &str, world: usize) -> Waiting {
        let missing = (0..world).filter(|rank| !self.given.contains_key(rank)).collect();
        Waiting { id: None, what: what.into(), group: all(world), missing }
    }
}

fn all(world: usize) -> Vec<usize> {
    (0..world).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_not_come_is_known() {
        let mut meetings = Meetings::default();
        assert_eq!(meetings.give("save", 2, vec![2], 3), None);
        assert_eq!(meetings.give("load", 1, vec![], 3), None);
        assert_eq!(meetings.late(Duration::from_secs(60), 3), None);
        assert_eq!(meetings.missing(3).collect::<Vec<_>>(), [0, 1, 2]);
        let (first, waiting) = meetings.late(Duration::ZERO, 3).expect("late");
        assert_eq!((first, waiting.what.as_str(), waiting.missing), (1, "load", vec![0, 2]));
        assert_eq!(meetings.waiting(0, 3), [], "rank 0 came to none");
        assert_eq!(meetings.give("save", 0, vec![0], 3), None);
        assert_eq!(meetings.waiting(0, 3).len(), 1);
        assert!(meetings.is_open("save"));
        assert_eq!(meetings.give("save", 1, vec![1], 3), Some(vec![vec![0], vec![1], vec![2]]));
        assert!(!meetings.is_open("save") && meetings.is_open("load"));
    }

    #[test]
    fn who_works_is_waited_for() {
        let (short, mut meetings) = (Duration::from_millis(1), Meetings::default());
        meetings.give("save", 2, vec![], 3);
        std::thread::sleep(2 * short);
        meetings.work(1);
        let missing = |meetings: &Meetings, patience| meetings.late(patience, 3).map(|(_, waiting)| waiting.missing);
        assert!(meetings.is_long(short) && !meetings.is_long(Duration::from_secs(60)));
        meetings.worked.insert(1, Instant::now() + Duration::from_secs(60));
        assert_eq!(missing(&meetings, short), Some(vec![0]));
        meetings.worked.insert(0, Instant::now() + Duration::from_secs(60));
        assert_eq!(missing(&meetings, short), None);
    }

    #[test]
    fn what_all_gave_is_taken_once() {
        let mut meetings = Meetings::default();
        meetings.wait_in("save");
        assert_eq!((meetings.waits_for(), &meetings.waiting(1, 2)[0].missing[..]), (Some("save"), &[0][..]));
        meetings.finish("save".into(), vec![vec![], vec![1]]);
        assert_eq!(meetings.take("save"), Some(vec![vec![], vec![1]]));
        assert_eq!((meetings.take("save"), meetings.waiting(1, 2)), (None, vec![]));
    }
}
