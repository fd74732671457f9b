//! Signs of work: a process that writes or hashes what takes minutes is late for a meeting, and not stuck.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Of this process. Ranks that are threads of one process have no meetings.
static DONE: AtomicU64 = AtomicU64::new(0);

/// Says that this process got on with what it does by itself: others go on waiting for it in their meetings. To be called
/// after each part that takes a second at most.
pub fn worked() {
    DONE.fetch_add(1, Relaxed);
}

/// Changes with each sign of work.
pub fn done() -> u64 {
    DONE.load(Relaxed)
}
