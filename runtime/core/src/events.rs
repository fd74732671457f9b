//! Events between lanes: each holds the number of the last run in which it was recorded.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, PoisonError};

pub struct Events {
    recorded: Vec<AtomicU64>,
    /// Before a waiting lane sleeps.
    spins: u32,
    /// A lane gave up: nobody shall wait for it.
    failed: AtomicBool,
    waiting: AtomicU32,
    lock: Mutex<()>,
    change: Condvar,
}

impl Events {
    pub fn new(count: usize, spins: u32) -> Self {
        Self {
            recorded: (0..count).map(|_| AtomicU64::new(0)).collect(),
            spins,
            failed: AtomicBool::new(false),
            waiting: AtomicU32::new(0),
            lock: Mutex::new(()),
            change: Condvar::new(),
        }
    }

    pub fn record(&self, event: usize, run: u64) {
        self.recorded[event].store(run, SeqCst);
        self.wake();
    }

    /// False if the lane that should record it failed.
    pub fn wait(&self, event: usize, run: u64) -> bool {
        let over = || self.recorded[event].load(SeqCst) >= run || self.failed.load(SeqCst);
        for _ in 0..self.spins {
            if over() {
                break;
            }
            std::hint::spin_loop();
        }
        if !over() {
            self.waiting.fetch_add(1, SeqCst);
            let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            while !over() {
                guard = self.change.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
            drop(guard);
            self.waiting.fetch_sub(1, SeqCst);
        }
        !self.failed.load(SeqCst)
    }

    pub fn fail(&self) {
        self.failed.store(true, SeqCst);
        self.wake();
    }

    fn wake(&self) {
        if self.waiting.load(SeqCst) > 0 {
            // Taking the lock keeps the notice from slipping in between a waiter's last look and its sleep.
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.change.notify_all();
        }
    }
}
