//! The worker pool: threads that share the parts of one launch at a time.
//!
//! A ticket holds the number of the launch and the next part to take. Whoever swaps it from (launch, n) to (launch, n + 1)
//! owns part n, and a launch is over when all its parts are done, not when all workers have noticed it: a worker that the
//! system holds up delays nobody unless it holds a part.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::thread::{JoinHandle, Thread};

pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    /// A launch from a second lane finds the pool taken and runs its parts itself.
    taken: AtomicBool,
}

struct Worker {
    thread: Thread,
    handle: Option<JoinHandle<()>>,
    asleep: Arc<AtomicBool>,
}

struct Shared {
    work: Box<dyn Fn(u64, u32, u32) + Send + Sync>,
    /// Launch number in the upper half, next part in the lower.
    ticket: AtomicU64,
    job: AtomicU64,
    parts: AtomicU32,
    done: AtomicU32,
    panicked: AtomicBool,
    started: AtomicU32,
    stop: AtomicBool,
    /// Before a thread goes to sleep.
    spins: u32,
}

impl Pool {
    /// A pool of `threads` threads, the caller of [`Pool::run`] among them; `work(job, part, parts)` is what they do.
    pub fn new(
        threads: usize,
        spins: u32,
        work: impl Fn(u64, u32, u32) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            work: Box::new(work),
            ticket: AtomicU64::new(0),
            job: AtomicU64::new(0),
            parts: AtomicU32::new(0),
            done: AtomicU32::new(0),
            panicked: AtomicBool::new(false),
            started: AtomicU32::new(0),
            stop: AtomicBool::new(false),
            spins,
        });
        let mut pool = Self { shared, workers: Vec::new(), taken: AtomicBool::new(false) };
        for i in 1..threads {
            let (shared, asleep) = (pool.shared.clone(), Arc::new(AtomicBool::new(false)));
            let flag = asleep.clone();
            let handle = std::thread::Builder::new().name(format!("worker {i}")).spawn(move || shared.serve(&flag))?;
            pool.workers.push(Worker { thread: handle.thread().clone(), handle: Some(handle), asleep });
        }
        // A thread allocates as it begins; that shall not happen in the middle of a step.
        while (pool.shared.started.load(SeqCst) as usize) < pool.workers.len() {
            std::thread::yield_now();
        }
        Ok(pool)
    }

    /// Runs all parts of a job and returns when they are done; false if one of them panicked.
    pub fn run(&self, job: u64, parts: u32) -> bool {
        if parts <= 1 || self.workers.is_empty() || self.taken.swap(true, SeqCst) {
            return (0..parts).all(|part| self.shared.part(job, part, parts));
        }
        let shared = &*self.shared;
        // Closed first: a worker that still holds the last ticket must not take it for one of the new parts.
        let launch = (shared.ticket.load(SeqCst) >> 32).wrapping_add(1) << 32;
        shared.ticket.store(launch | u64::from(u32::MAX), SeqCst);
        shared.panicked.store(false, SeqCst);
        shared.done.store(0, SeqCst);
        shared.job.store(job, SeqCst);
        shared.parts.store(parts, SeqCst);
        shared.ticket.store(launch, SeqCst);
        for worker in &self.workers {
            if worker.asleep.swap(false, SeqCst) {
                worker.thread.unpark();
            }
        }
        while shared.take().is_ok() {}
        let mut spins = 0;
        while shared.done.load(SeqCst) < parts {
            spins += 1;
            if spins < shared.spins { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        let good = !shared.panicked.load(SeqCst);
        self.taken.store(false, SeqCst);
        good
    }
}

impl Shared {
    /// Takes and runs one part, or gives the ticket that has none left.
    fn take(&self) -> Result<(), u64> {
        let ticket = self.ticket.load(SeqCst);
        let (part, parts, job) = (ticket as u32, self.parts.load(SeqCst), self.job.load(SeqCst));
        if part >= parts {
            return Err(ticket);
        }
        // While part `part` is not taken its launch is not over, so that job and parts, read above, belong to the ticket
        // if it is still there now.
        if self.ticket.compare_exchange(ticket, ticket + 1, SeqCst, SeqCst).is_ok() {
            if !self.part(job, part, parts) {
                self.panicked.store(true, SeqCst);
            }
            self.done.fetch_add(1, SeqCst);
        }
        Ok(())
    }

    fn part(&self, job: u64, part: u32, parts: u32) -> bool {
        catch_unwind(AssertUnwindSafe(|| (self.work)(job, part, parts))).is_ok()
    }

    fn serve(&self, asleep: &AtomicBool) {
        self.started.fetch_add(1, SeqCst);
        loop {
            let Err(seen) = self.take() else { continue };
            let mut spins = 0;
            while self.ticket.load(SeqCst) == seen && spins < self.spins {
                spins += 1;
                std::hint::spin_loop();
            }
            if self.ticket.load(SeqCst) != seen {
                continue;
            }
            // The flag goes up before the last look at the ticket, and `run` changes the ticket before it looks at the
            // flag: one of the two sees the other.
            asleep.store(true, SeqCst);
            while self.ticket.load(SeqCst) == seen && !self.stop.load(SeqCst) {
                std::thread::park();
            }
            asleep.store(false, SeqCst);
            if self.stop.load(SeqCst) {
                return;
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        for worker in &mut self.workers {
            worker.thread.unpark();
            if let Some(handle) = worker.handle.take() {
                // A worker catches the panics of its parts; it has none of its own to report.
                let _ = handle.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(threads: usize, most: u32, jobs: u64) {
        let sums: Arc<Vec<AtomicU64>> = Arc::new((0..jobs).map(|_| AtomicU64::new(0)).collect());
        let into = sums.clone();
        let pool = Pool::new(threads, 1000, move |job, part, parts| {
            assert!(part < parts);
            into[job as usize].fetch_add(1 << (8 * part), SeqCst);
        });
        let pool = pool.expect("threads");
        for job in 0..jobs {
            let parts = most - job as u32 % 2;
            assert!(pool.run(job, parts));
            let each = (0..parts).fold(0, |sum, part| sum + (1 << (8 * part)));
            assert_eq!(sums[job as usize].load(SeqCst), each, "each part of job {job} ran once");
        }
    }

    #[test]
    fn every_part_runs_once() {
        check(1, 4, 10);
        check(2, 3, 20_000);
        check(3, 8, 20_000);
        check(8, 4, 2_000);
    }

    #[test]
    fn a_panic_is_reported_and_the_pool_goes_on() {
        let pool = Pool::new(2, 1000, |job, part, _| assert!(job != 1 || part != 1)).expect("threads");
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let results = [pool.run(0, 2), pool.run(1, 2), pool.run(2, 2)];
        std::panic::set_hook(hook);
        assert_eq!(results, [true, false, true]);
    }

    #[test]
    fn sleeping_workers_wake() {
        let pool = Pool::new(4, 1000, |_, _, _| ()).expect("threads");
        for _ in 0..5 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            assert!(pool.run(0, 4));
        }
    }
}
