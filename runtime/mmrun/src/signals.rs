//! SIGTERM and SIGINT: the first asks the run to end after its step, the second ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};
use std::thread::Builder;
use std::time::{Duration, Instant};

use data::Wait;
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator;

use crate::failure::Failure;
use crate::progress::note;

/// `timeout` and launchers signal a process and its group, so that it gets the same signal twice: within this time, two
/// are one.
const TWICE: Duration = Duration::from_millis(50);

/// How long nothing is said of a pipe without a reader.
const QUIET: Duration = Duration::from_secs(1);

#[derive(Clone, Default)]
pub struct Signals {
    caught: Arc<AtomicI32>,
    watched: Arc<AtomicBool>,
}

impl Signals {
    /// From now on, signals are taken by the run. Before its first step there is nothing to save, and they end it.
    pub fn watch(&self) -> Result<(), Failure> {
        let cannot = |e| Failure::new(format!("SIGTERM and SIGINT cannot be handled: {e}"));
        let mut signals = iterator::Signals::new([SIGTERM, SIGINT]).map_err(cannot)?;
        let caught = self.caught.clone();
        let watch = move || {
            let mut first: Option<Instant> = None;
            for signal in signals.forever() {
                match first {
                    None => {
                        first = Some(Instant::now());
                        caught.store(signal, Relaxed);
                    }
                    Some(at) if at.elapsed() > TWICE => signal_hook::low_level::exit(128 + signal),
                    Some(_) => {}
                }
            }
        };
        Builder::new().name("signals".into()).spawn(watch).map_err(cannot)?;
        self.watched.store(true, Relaxed);
        Ok(())
    }

    /// For outputs that are pipes: says that they wait for a reader, and ends the waiting when a signal comes.
    pub fn wait(&self) -> Wait {
        let (signals, told) = (self.clone(), AtomicBool::new(false));
        Arc::new(move |path, waited| {
            if waited > QUIET && !told.swap(true, Relaxed) {
                note(&format!("{} waits for somebody who reads from this pipe", path.display()));
            }
            let given_up = |signal| format!("nobody reads from this pipe, and the run was stopped by {}", name(signal));
            signals.caught().map_or(Ok(()), |signal| Err(io::Error::other(given_up(signal))))
        })
    }

    /// Hands on a signal that came before.
    #[cfg_attr(not(feature = "mpi"), expect(dead_code, reason = "only processes of a launcher listen before"))]
    pub fn hand_on(&self, signal: i32) {
        // Where there is one already, that stays.
        let _ = self.caught.compare_exchange(0, signal, Relaxed, Relaxed);
    }

    /// The signal that asked for the end.
    pub fn caught(&self) -> Option<i32> {
        Some(self.caught.load(Relaxed)).filter(|signal| *signal != 0)
    }

    /// Whether the run takes signals itself.
    #[cfg_attr(not(feature = "mpi"), expect(dead_code, reason = "only processes of a launcher ask"))]
    pub fn are_watched(&self) -> bool {
        self.watched.load(Relaxed)
    }
}

pub fn name(signal: i32) -> &'static str {
    signal_hook::low_level::signal_name(signal).unwrap_or("a signal")
}

/// A file that grows over the limit of `ulimit -f` is an error of the write, as on a full disk, and not the end.
pub fn spare_large_files() {
    // Where it cannot be registered, the system does as it does to all.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
}
