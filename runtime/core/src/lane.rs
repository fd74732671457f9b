//! Lanes: the threads that walk a program's instructions, each in order, all at once.
#![allow(unsafe_code, reason = "instructions touch the arena; the verified plan orders all that conflicts")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::arena::Arena;
use crate::code::{Code, Step};
use crate::events::Events;
use crate::feeder::Staging;
use crate::pool::Pool;
use crate::trace::Mark;

/// What all lanes of an executor share.
pub(crate) struct Machine {
    /// Dropped first: its threads use the code.
    pub pool: Pool,
    pub codes: Arc<Vec<Code>>,
    pub arena: Arc<Arena>,
    pub events: Vec<Events>,
    /// By emit; empty for emits nobody asked for.
    pub emits: Vec<Mutex<Vec<u8>>>,
    /// By lane, when a trace was asked for.
    pub marks: Option<Vec<Mutex<Vec<Mark>>>>,
    pub start: Instant,
    /// 1 + the step that panicked.
    pub panicked: AtomicU32,
}

/// One run of a program.
#[derive(Clone)]
pub(crate) struct Task {
    pub program: usize,
    /// Number of the run, from 1.
    pub run: u64,
    /// Number of the training step.
    pub step: u64,
    pub staging: Arc<Staging>,
}

impl Machine {
    /// Runs the instructions of one lane; false if this or another lane failed.
    pub fn lane(&self, task: &Task, lane: usize) -> bool {
        let code = &self.codes[task.program];
        let events = &self.events[task.program];
        for &index in code.lanes.get(lane).map_or(&[][..], Vec::as_slice) {
            let begin = self.marks.as_ref().map(|_| self.start.elapsed());
            let good = match &code.steps[index as usize] {
                Step::Record(event) => {
                    events.record(*event, task.run);
                    true
                }
                Step::Wait(event) => events.wait(*event, task.run),
                _ => self.step(task, index),
            };
            if !good {
                events.fail();
                return false;
            }
            self.mark(lane, index, begin);
        }
        true
    }

    /// Runs all lanes on this thread in schedule order, and overwrites buffers with NaN as they die.
    pub fn poisoned(&self, task: &Task) -> bool {
        let code = &self.codes[task.program];
        for index in 0..code.steps.len() {
            if !self.step(task, index as u32) {
                return false;
            }
            for &(at, bytes) in &code.deaths[index] {
                // SAFETY: one thread runs everything, and no slice of the arena is alive here.
                unsafe { self.arena.write(at, bytes) }.fill(0xFF);
            }
        }
        true
    }

    fn step(&self, task: &Task, index: u32) -> bool {
        let code = &self.codes[task.program];
        match &code.steps[index as usize] {
            Step::Launch { parts, .. } => {
                let job = (task.program as u64) << 32 | u64::from(index);
                let good = self.pool.run(job, *parts);
                if !good {
                    self.panicked.store(index + 1, SeqCst);
                }
                good
            }
            Step::Copy { from, to, bytes } => {
                // SAFETY: the verifier showed that the two are apart and that nothing conflicting runs now.
                unsafe { self.arena.copy(*from, *to, *bytes) };
                true
            }
            Step::Feed { feed, at, bytes } => {
                let values = task.staging.feed(task.step, *feed);
                // SAFETY: nothing else touches the bytes of this feed now, by the verifier.
                unsafe { self.arena.write(*at, *bytes) }.copy_from_slice(&values);
                true
            }
            Step::Emit { emit, at, bytes } => {
                let mut to = self.emits[*emit].lock().unwrap_or_else(PoisonError::into_inner);
                if !to.is_empty() {
                    // SAFETY: nothing writes what is emitted now, by the verifier.
                    to.copy_from_slice(unsafe { self.arena.read(*at, *bytes) });
                }
                true
            }
            Step::Record(_) | Step::Wait(_) => true,
        }
    }

    fn mark(&self, lane: usize, index: u32, begin: Option<std::time::Duration>) {
        if let (Some(marks), Some(begin)) = (&self.marks, begin) {
            let mut marks = marks[lane].lock().unwrap_or_else(PoisonError::into_inner);
            // The room was made before the run; a lane never waits for memory.
            if marks.len() < marks.capacity() {
                marks.push(Mark { index, begin, end: self.start.elapsed() });
            }
        }
    }
}

/// The thread of a lane other than the first.
pub(crate) struct LaneThread {
    post: Arc<Post>,
    handle: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Post {
    state: Mutex<PostState>,
    change: Condvar,
    failed: AtomicBool,
}

#[derive(Default)]
struct PostState {
    task: Option<Task>,
    busy: bool,
    stop: bool,
}

impl LaneThread {
    pub fn new(lane: usize, machine: Arc<Machine>) -> std::io::Result<Self> {
        let post = Arc::new(Post::default());
        let mine = post.clone();
        let run = move || {
            while let Some(task) = mine.next() {
                // A panic here would be a fault of the executor; the other lanes must still not wait for this one.
                let good = catch_unwind(AssertUnwindSafe(|| machine.lane(&task, lane))).unwrap_or_else(|_| {
                    machine.events[task.program].fail();
                    false
                });
                drop(task);
                mine.failed.store(!good, SeqCst);
                mine.lock().busy = false;
                mine.change.notify_all();
            }
        };
        let handle = std::thread::Builder::new().name(format!("lane {lane}")).spawn(run)?;
        Ok(Self { post, handle: Some(handle) })
    }

    pub fn start(&self, task: Task) {
        let mut state = self.post.lock();
        (state.task, state.busy) = (Some(task), true);
        self.post.change.notify_all();
    }

    pub fn finish(&self) -> bool {
        let mut state = self.post.lock();
        while state.busy {
            state = self.post.change.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !self.post.failed.load(SeqCst)
    }
}

impl Post {
    fn lock(&self) -> MutexGuard<'_, PostState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Task> {
        let mut state = self.lock();
        loop {
            if state.stop {
                return None;
            }
            if let Some(task) = state.task.take() {
                return Some(task);
            }
            state = self.change.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for LaneThread {
    fn drop(&mut self) {
        self.post.lock().stop = true;
        self.post.change.notify_all();
        if let Some(handle) = self.handle.take() {
            // Its panics were caught and reported with the run.
            let _ = handle.join();
        }
    }
}
