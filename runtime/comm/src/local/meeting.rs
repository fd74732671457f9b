//! A meeting: where the ranks of one collective wait until all have come.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::Operation;

/// A few microseconds. There may be many more ranks than cores, and whoever spins keeps the awaited from running.
const SPINS: u32 = 200;

pub struct Meeting {
    pub id: u32,
    /// Ranks by position.
    pub members: Vec<usize>,
    /// What each member brings, by position.
    pub operations: Vec<OnceLock<Operation>>,
    state: Mutex<State>,
    change: Condvar,
    /// How often all members have met.
    met: AtomicU64,
}

struct State {
    /// By position.
    here: Vec<bool>,
    came: usize,
    closed: bool,
}

impl Meeting {
    pub fn new(id: u32, members: Vec<usize>) -> Self {
        let count = members.len();
        Self {
            id,
            members,
            operations: (0..count).map(|_| OnceLock::new()).collect(),
            state: Mutex::new(State { here: vec![false; count], came: 0, closed: false }),
            change: Condvar::new(),
            met: AtomicU64::new(0),
        }
    }

    /// Waits for all members; false if the meeting is closed, for all of them, now and ever after. Calls `late` when
    /// `patience` is over, and goes on waiting: it is for `late` to close the meeting, if it is not too late for that.
    pub fn meet(&self, position: usize, patience: Option<Duration>, late: impl FnOnce()) -> bool {
        let mut state = self.lock();
        if state.closed {
            // Only for reports.
            state.came += usize::from(!std::mem::replace(&mut state.here[position], true));
            return false;
        }
        let Some(number) = self.come(&mut state, position) else { return true };
        drop(state);
        self.spin(number);
        let mut state = self.lock();
        let mut end = patience.and_then(|p| Instant::now().checked_add(p)).zip(Some(late));
        // Whoever came in time is bound to stay, even if the meeting was closed right after.
        while self.met.load(SeqCst) < number {
            if state.closed {
                return false;
            }
            let left = end.as_ref().map(|(end, _)| end.saturating_duration_since(Instant::now()));
            state = match left {
                Some(Duration::ZERO) => {
                    drop(state);
                    end.take().into_iter().for_each(|(_, late)| late());
                    self.lock()
                }
                Some(left) => self.change.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.change.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        true
    }

    /// Waits for all members, who have met before and are bound to come again: not even the end of the world sends one of
    /// them away, since the others may be reading its memory.
    pub fn meet_again(&self, position: usize) {
        let Some(number) = self.come(&mut self.lock(), position) else { return };
        self.spin(number);
        let mut state = self.lock();
        while self.met.load(SeqCst) < number {
            state = self.change.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets no more first meetings take place and wakes those who wait for one.
    pub fn close(&self) {
        self.lock().closed = true;
        self.change.notify_all();
    }

    /// Positions of those who have not come, if any have: else nobody waits here.
    pub fn awaited(&self) -> Option<Vec<bool>> {
        let state = self.lock();
        (state.came > 0).then(|| state.here.iter().map(|here| !here).collect())
    }

    /// The number of the meeting to wait for; none for the last to come.
    fn come(&self, state: &mut State, position: usize) -> Option<u64> {
        let number = self.met.load(SeqCst) + 1;
        state.here[position] = true;
        state.came += 1;
        if state.came < self.members.len() {
            return Some(number);
        }
        state.here.fill(false);
        state.came = 0;
        self.met.store(number, SeqCst);
        self.change.notify_all();
        None
    }

    fn spin(&self, number: u64) {
        for _ in 0..SPINS {
            if self.met.load(SeqCst) >= number {
                return;
            }
            std::hint::spin_loop();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
