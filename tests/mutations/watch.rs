//! A thread that ends the process when a case takes too long or too much memory, and says which it is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::inputs::Input;
use crate::keep;

const LONGEST: Duration = Duration::from_secs(10);
const MOST_KIB: u64 = 2 << 20;

struct Running {
    case: u64,
    input: Input,
    since: Instant,
}

/// Ends with the process.
pub struct Watch(Arc<Mutex<Option<Running>>>);

impl Watch {
    pub fn start() -> Self {
        let running: Arc<Mutex<Option<Running>>> = Arc::default();
        let watched = running.clone();
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(20));
                let running = watched.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(Running { case, input, since }) = &*running else { continue };
                let why = match (since.elapsed() > LONGEST, resident_kib() > MOST_KIB) {
                    (true, _) => "takes longer than 10 s",
                    (_, true) => "takes more than 2 GiB",
                    _ => continue,
                };
                eprintln!("case {case} {why}: {}", keep(*case, input));
                std::process::exit(101);
            }
        });
        Self(running)
    }

    pub fn begins(&self, case: u64, input: &Input) {
        let running = Running { case, input: input.clone(), since: Instant::now() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
    }

    pub fn ends(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Memory of this process, where the system tells.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    line.and_then(|kib| kib.parse().ok()).unwrap_or(0)
}
