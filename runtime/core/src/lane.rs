//! Lane threads: each runs its lane's instructions of one task after another.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::machine::{Machine, Task};

/// The thread of a lane other than the first.
pub(crate) struct LaneThread {
    post: Arc<Post>,
    handle: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Post {
    state: Mutex<PostState>,
    change: Condvar,
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
                // How it ended is in the machine.
                machine.lane(&task, lane);
                drop(task);
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

    pub fn finish(&self) {
        let mut state = self.post.lock();
        while state.busy {
            state = self.post.change.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
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
            // Panics of instructions were caught and reported with the run.
            let _ = handle.join();
        }
    }
}
