//! The communicator for ranks that are threads of one process: collectives read the peers' memory where it is.

mod exchange;
mod meeting;
mod watch;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::report::End;
use crate::{Cause, Collective, CommError, Communicator, Kind, Operation, Whereabouts};
use exchange::Exchange;
use meeting::Meeting;

/// One rank of a world of threads.
pub struct Local {
    rank: usize,
    world: Arc<World>,
}

/// What the ranks share.
struct World {
    ranks: Vec<Rank>,
    /// How long a rank waits for others before it ends the run; none for ever.
    patience: Option<Duration>,
    meetings: Mutex<Meetings>,
    ended: AtomicBool,
    end: OnceLock<End>,
}

/// By the collective and the ranks that take part in it.
type Meetings = BTreeMap<(u32, Vec<usize>), Arc<Meeting>>;

#[derive(Default)]
struct Rank {
    whereabouts: OnceLock<Arc<dyn Whereabouts>>,
    left: AtomicBool,
}

impl Local {
    /// The ranks of a new world, in order. A rank that waits for others longer than `patience` ends the run with a report;
    /// without it, it waits for ever.
    pub fn world(size: usize, patience: Option<Duration>) -> Vec<Self> {
        let world = Arc::new(World {
            ranks: (0..size).map(|_| Rank::default()).collect(),
            patience,
            meetings: Mutex::default(),
            ended: AtomicBool::new(false),
            end: OnceLock::new(),
        });
        (0..size).map(|rank| Self { rank, world: world.clone() }).collect()
    }
}

impl Communicator for Local {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world.ranks.len()
    }

    fn prepare(&self, operation: Operation) -> Result<Box<dyn Collective>, CommError> {
        let (id, rank) = (operation.id, self.rank);
        // A message is a meeting of two, the sender first.
        let (members, position) = match operation.kind {
            Kind::Send { to } => (vec![rank, operation.group[to]], 0),
            Kind::Receive { from } => (vec![operation.group[from], rank], 1),
            _ => (operation.group.clone(), operation.position),
        };
        if members.get(position) != Some(&rank) || members.iter().any(|m| *m >= self.world.ranks.len()) {
            let why = format!("rank {rank} of {} is to take part in a group of {members:?}", self.world.ranks.len());
            return Err(CommError::Malformed { id, why });
        }
        // Held to the end, so that of two ranks one sees the other's operation.
        let mut meetings = self.world.meetings();
        let meeting = match meetings.entry((id, members)) {
            Entry::Occupied(entry) => entry.get().clone(),
            Entry::Vacant(entry) => {
                let members = entry.key().1.clone();
                entry.insert(Arc::new(Meeting::new(id, members))).clone()
            }
        };
        if let Some(other) = meeting.operations.iter().find_map(OnceLock::get) {
            agree(other, &operation)?;
        }
        meeting.operations[position].set(operation).map_err(|_| CommError::Twice { id, rank })?;
        // A world that ended before the meeting was made has not closed it.
        if self.world.ended.load(SeqCst) || meeting.members.iter().any(|m| self.world.ranks[*m].left.load(SeqCst)) {
            meeting.close();
        }
        Ok(Box::new(Exchange { meeting, position, rank, world: self.world.clone() }))
    }

    fn attach(&self, whereabouts: Arc<dyn Whereabouts>) {
        // The first executor of a rank is the one that runs.
        let _ = self.world.ranks[self.rank].whereabouts.set(whereabouts);
    }

    fn fail(&self, why: &str) {
        self.world.end(End::Cause(Cause::Failed { rank: self.rank, why: why.into() }));
    }

    fn leave(&self) {
        if !self.world.ranks[self.rank].left.swap(true, SeqCst) {
            self.world.meetings().values().filter(|m| m.members.contains(&self.rank)).for_each(|m| m.close());
        }
    }

    fn is_alone(&self) -> bool {
        let left = |(rank, other): (usize, &Rank)| rank == self.rank || other.left.load(SeqCst);
        self.world.ranks.iter().enumerate().all(left)
    }

    fn failure(&self) -> Option<CommError> {
        self.world.ended.load(SeqCst).then(|| self.world.report(None)).map(CommError::Ended)
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.leave();
    }
}

impl World {
    fn meetings(&self) -> MutexGuard<'_, Meetings> {
        self.meetings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the run on all ranks, unless it has ended before; gives the first end.
    fn end(&self, end: End) -> &End {
        let end = self.end.get_or_init(|| end);
        if !self.ended.swap(true, SeqCst) {
            self.meetings().values().for_each(|m| m.close());
        }
        end
    }
}

/// That two ranks mean the same by one id.
fn agree(first: &Operation, second: &Operation) -> Result<(), CommError> {
    let same = match (&first.kind, &second.kind) {
        (Kind::Send { .. }, Kind::Receive { .. }) | (Kind::Receive { .. }, Kind::Send { .. }) => true,
        (Kind::Send { .. } | Kind::Receive { .. }, _) => false,
        (a, b) => a == b,
    };
    if same && first.units() == second.units() {
        return Ok(());
    }
    let describe = |o: &Operation| format!("{:?} of {:?} bytes", o.kind, o.units());
    Err(CommError::Mismatch {
        id: first.id,
        first: first.group[first.position],
        second: second.group[second.position],
        first_is: describe(first),
        second_is: describe(second),
    })
}
