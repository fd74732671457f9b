//! The feeder: a thread that fills the feeds of the next step while the current one runs; and feeds that the host fills
//! itself before it calls a program.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use plan::FeedId;

use crate::{ExecError, Executor};

/// How often a rank that waits for its feeds looks whether the others are well.
const GLANCE: Duration = Duration::from_millis(100);

pub type FeedError = Box<dyn std::error::Error + Send + Sync>;

/// Where the values of feeds come from. What it gives must depend on the step alone: steps are asked for in order, but
/// ahead of time, and a resumed run begins in the middle.
pub trait FeedSource: Send {
    /// Fills the rank's share of a feed, in the feed's element type, row-major.
    fn fill(&mut self, feed: FeedId, step: u64, to: &mut [u8]) -> Result<(), FeedError>;
}

pub struct Feeder {
    staging: Arc<Staging>,
    handle: Option<JoinHandle<()>>,
    next: u64,
}

/// Sets of feed buffers: two for a feeder, one that a step reads and one that is being filled; one for the host.
pub(crate) struct Staging {
    state: Mutex<State>,
    change: Condvar,
    /// Steps take turns with them. Then by feed; empty for feeds that the program does not take.
    sets: Vec<Vec<Mutex<Vec<u8>>>>,
}

/// The feeds of a program that runs on demand, which the host fills in place before each call.
pub struct HostFeeds {
    staging: Arc<Staging>,
    feeds: Vec<(usize, u64)>,
}

impl HostFeeds {
    /// All zeros.
    pub fn new(executor: &Executor, program: usize) -> Self {
        let feeds = executor.feeds(program).to_vec();
        Self { staging: Arc::new(Staging::new(&feeds, 1)), feeds }
    }

    /// The bytes of a feed as the last call had them, to be changed; none if this rank does not take it.
    pub fn get(&mut self, feed: FeedId) -> Option<MutexGuard<'_, Vec<u8>>> {
        self.feeds.iter().any(|(f, _)| *f == feed.index()).then(|| self.staging.feed(0, feed.index()))
    }

    /// Fills all of them with what a source has for a step; the feed that fails is named by its id.
    pub fn fill(&mut self, source: &mut impl FeedSource, step: u64) -> Result<(), (FeedId, FeedError)> {
        self.feeds.iter().try_for_each(|(feed, _)| {
            let id = FeedId::new(*feed);
            source.fill(id, step, &mut self.staging.feed(0, *feed)).map_err(|error| (id, error))
        })
    }

    pub(crate) fn staging(&self) -> Arc<Staging> {
        self.staging.clone()
    }
}

#[derive(Default)]
struct State {
    /// The step that each set is ready for.
    ready: [Option<u64>; 2],
    failed: Option<(usize, u64, FeedError)>,
    over: bool,
    stop: bool,
}

impl Feeder {
    /// Feeds for `program` from step `first` on, at most `steps` of them.
    pub fn new(
        executor: &Executor,
        program: usize,
        mut source: impl FeedSource + 'static,
        first: u64,
        steps: Option<u64>,
    ) -> Result<Self, ExecError> {
        let feeds = executor.feeds(program).to_vec();
        let staging = Arc::new(Staging::new(&feeds, 2));
        let shared = staging.clone();
        let last = steps.map(|n| first.saturating_add(n));
        let mut run = move || {
            let mut step = first;
            while last.is_none_or(|l| step < l) && shared.fill(step, &feeds, &mut source) {
                step += 1;
            }
        };
        let on_end = staging.clone();
        let handle = std::thread::Builder::new().name("feeder".into()).spawn(move || {
            let guard = End(on_end);
            run();
            drop(guard);
        })?;
        Ok(Self { staging, handle: Some(handle), next: first })
    }

    /// The step whose feeds come next.
    pub fn step(&self) -> u64 {
        self.next
    }

    /// Waits until the next step's feeds are there; `failed` tells why to wait no longer.
    pub(crate) fn wait(
        &self,
        name: impl Fn(usize) -> types::Name,
        failed: impl Fn() -> Option<ExecError>,
    ) -> Result<Arc<Staging>, ExecError> {
        let mut state = self.staging.lock();
        loop {
            if state.ready[(self.next % 2) as usize] == Some(self.next) {
                return Ok(self.staging.clone());
            }
            if let Some((feed, step, error)) = state.failed.take() {
                return Err(ExecError::Feed { feed: name(feed), step, error });
            }
            if state.over {
                let error = "the source of feeds has ended".into();
                return Err(ExecError::Feed { feed: "all".into(), step: self.next, error });
            }
            if let Some(error) = failed() {
                return Err(error);
            }
            let waited = self.staging.change.wait_timeout(state, GLANCE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Gives the set of the step that just ran back to be filled.
    pub(crate) fn release(&mut self) {
        self.staging.lock().ready[(self.next % 2) as usize] = None;
        self.staging.change.notify_all();
        self.next += 1;
    }
}

impl Staging {
    /// Zeros for each of these feeds, so many times.
    pub fn new(feeds: &[(usize, u64)], sets: usize) -> Self {
        let count = feeds.iter().map(|(f, _)| f + 1).max().unwrap_or(0);
        let set = || {
            let mut set: Vec<Mutex<Vec<u8>>> = (0..count).map(|_| Mutex::default()).collect();
            for (feed, bytes) in feeds {
                set[*feed] = Mutex::new(vec![0; *bytes as usize]);
            }
            set
        };
        Self { state: Mutex::default(), change: Condvar::new(), sets: (0..sets).map(|_| set()).collect() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The values of a feed at a step that is ready.
    pub fn feed(&self, step: u64, feed: usize) -> MutexGuard<'_, Vec<u8>> {
        self.sets[(step % self.sets.len() as u64) as usize][feed].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills the feeds of one step when their set is free; false at the end.
    fn fill(&self, step: u64, feeds: &[(usize, u64)], source: &mut impl FeedSource) -> bool {
        let mut state = self.lock();
        while state.ready[(step % 2) as usize].is_some() && !state.stop {
            state = self.change.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stop {
            return false;
        }
        drop(state);
        let _span = tracing::debug_span!("feed", step).entered();
        for (feed, _) in feeds {
            if let Err(error) = source.fill(FeedId::new(*feed), step, &mut self.feed(step, *feed)) {
                self.lock().failed = Some((*feed, step, error));
                self.change.notify_all();
                return false;
            }
        }
        self.lock().ready[(step % 2) as usize] = Some(step);
        self.change.notify_all();
        true
    }
}

/// Tells the waiting step that no more feeds will come, however the thread ends.
struct End(Arc<Staging>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.change.notify_all();
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.staging.lock().stop = true;
        self.staging.change.notify_all();
        if let Some(handle) = self.handle.take() {
            // A panic of the source has shown itself as the end of the feeds.
            let _ = handle.join();
        }
    }
}
