//! A limit in time for calls that cannot be told to stop waiting.

use std::io::Write;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::failure::Failure;

/// Ends the process unless it is dropped in time.
pub struct Limit {
    _held: Sender<()>,
}

impl Limit {
    /// `what` is said at the end of the time.
    pub fn new(patience: Duration, what: String) -> Result<Self, Failure> {
        let (held, released) = channel::<()>();
        let wait = move || {
            if released.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                let failure = Failure::new(format!("{what} within {} s", patience.as_secs_f64()));
                end_process(&failure.help("--timeout S sets how long a rank waits for others"));
            }
        };
        spawn("limit", wait)?;
        Ok(Self { _held: held })
    }
}

/// A thread of its own.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let spawned = thread::Builder::new().name(name.into()).spawn(work);
    spawned.map(drop).map_err(|e| Failure::new(format!("the thread `{name}` could not be started: {e}")))
}

/// Ends the process from any thread, without what libraries do at the end, which may wait as well.
pub fn end_process(failure: &Failure) -> ! {
    let _ = std::io::stderr().write_all(format!("{failure}\n").as_bytes());
    signal_hook::low_level::exit(1)
}
