//! Ranks that are processes of their own: they meet at a hub, which tells each of them when another is gone.
//!
//! The hub is a thread of rank 0 that passes messages on. What collectives carry does not go this way: it is for agreeing
//! before and after a run, and for finding out why a collective does not come about.

mod attendance;
mod frame;
mod hub;
mod link;
mod meetings;
mod work;

use std::io;
use std::time::{Duration, Instant};

#[cfg(feature = "mpi")]
pub use attendance::Attendance;
pub use hub::Hub;
pub use link::Link;
pub use work::worked;

/// How often a process says that it is alive.
const PULSE: Duration = Duration::from_secs(1);

/// Who is silent for so long is stopped or cut off.
const SILENCE: Duration = Duration::from_secs(8);

/// Why the process at the other end of a connection is lost, by an error of reading or writing. The kernel resets a
/// connection instead of closing it when a process ends with bytes that it has not read.
fn why_lost(error: &io::Error) -> String {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
    match error.kind() {
        UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe => "its process is gone".into(),
        // A write that waits for too long.
        WouldBlock | TimedOut => "its process takes no messages: stopped, starved or cut off".into(),
        _ => format!("the connection to its process broke: {error}"),
    }
}

/// Whether this process itself was stopped (Ctrl-Z, or a scheduler that suspends jobs) while it meant to sleep from `start`
/// for one pulse. The silence of others then means nothing.
fn was_stopped(start: Instant) -> bool {
    start.elapsed() > 3 * PULSE
}
