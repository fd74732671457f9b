//! One process for each rank, over MPI.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use comm::{Link, Mpi};
use data::Together;
use plan::Header;

use super::limit::{Limit, end_process, spawn};
use super::{Launch, Seats};
use crate::cli::Args;
use crate::failure::Failure;
use crate::setup::mesh_of;
use crate::signals::Signals;

/// Between the signal to stop and the end of the run: for others to say what they know.
const GRACE: Duration = Duration::from_millis(300);

/// Between a failure and the end of the process: longer than others wait for answers before they say what they know.
const LINGER: Duration = Duration::from_secs(2);

/// Between the end of a run by whichever rank and the end of this process, whatever it is in: a file system that does not
/// answer, a long kernel, MPI.
const LAST: Duration = Duration::from_secs(10);

/// How long rank 0, through which the others hear of each other, waits for them to be gone.
const FAREWELL: Duration = Duration::from_secs(5);

pub struct Processes {
    launched: comm::Launched,
    rank: Mpi,
    link: Arc<Link>,
    together: Together,
    /// Ranks on this machine.
    here: usize,
    /// Whether this process has come to its end by itself.
    ended: Arc<AtomicBool>,
}

impl Processes {
    /// Meets the others, within `patience`.
    pub fn start(launch: &Launch, args: &Args, signals: &Signals) -> Result<Self, Failure> {
        let patience = args.timeout;
        let (rank, world) = (launch.rank, launch.world);
        let waits =
            format!("(rank {rank}) not all of the {world} ranks that {} started came to the start of MPI", launch.by);
        let limit = Limit::new(patience, waits)?;
        let launched = comm::Launched::start()?;
        if launched.world() != launch.world {
            let (by, says, is, name) = (launch.by, launch.world, launched.world(), launch.names[1]);
            let what = format!("{by} says that there are {says} ranks ({name}), and MPI that there are {is}");
            return Err(Failure::new(what)
                .help("was this program built with the MPI whose mpirun (or srun --mpi) started it?")
                .help(format!("`unset {} {name}` if they are left from another launch", launch.names[0])));
        }
        let (rank, link) = launched.join(patience, || drop(limit))?;
        stop_on_signal(link.clone(), signals.clone())?;
        let ended = Arc::new(AtomicBool::new(false));
        end_with_the_run(link.clone(), ended.clone())?;
        let together = Together::with(link.clone()).with_fault(args.meeting_fault.clone());
        Ok(Self { launched, rank, link, together, here: launch.here, ended })
    }

    pub fn seats(&self, header: &Header) -> Result<Seats, Failure> {
        let (ranks, started) = (header.world(), self.link.world());
        if ranks != started {
            let mesh = if ranks > 1 { format!("{ranks} ranks, {}", mesh_of(&header.mesh)) } else { "one rank".into() };
            return Err(Failure::new(format!("the plan is for {mesh}, and {started} were started"))
                .help(format!("start {ranks}, or compile the plan for a mesh of {started}")));
        }
        let communicators = vec![Some(Arc::new(self.rank.clone()) as _)];
        Ok(Seats { communicators, together: self.together.clone(), sharing: self.here })
    }

    /// Ends this process's part. It went well only if it did for all.
    pub fn finish<T>(self, result: Result<T, Failure>) -> Result<T, Failure> {
        let come = |value| Ok(self.together.meet("come to the end of the run", Vec::new()).map(|_| value)?);
        let all = result.and_then(come);
        self.ended.store(true, SeqCst);
        let rank = self.link.rank();
        if all.is_err() {
            return all.map_err(|failure| {
                self.link.fail(failure.message());
                failure.of_rank(rank, LINGER)
            });
        }
        self.link.farewell();
        let start = Instant::now();
        while rank == 0 && !self.link.is_last() && start.elapsed() < FAREWELL {
            thread::sleep(FAREWELL / 1000);
        }
        let _limit = Limit::new(self.link.patience(), format!("(rank {rank}) MPI did not come to its end"))?;
        self.launched.finish();
        all
    }
}

/// When the run has ended for all, this process does not stay, whatever it waits in.
fn end_with_the_run(link: Arc<Link>, ended: Arc<AtomicBool>) -> Result<(), Failure> {
    let watch = move || {
        let failure = loop {
            if let Some(failure) = link.failure() {
                break failure;
            }
            thread::sleep(GRACE / 3);
        };
        thread::sleep(LAST);
        if !ended.swap(true, SeqCst) {
            end_process(&Failure::from(failure).of_rank(link.rank(), Duration::ZERO));
        }
    };
    spawn("end of the run", watch)
}

/// Launchers ask all ranks to stop as soon as one of them is gone. This gives the others time to say so themselves. Once
/// steps are run, the signal ends the run between two of them.
fn stop_on_signal(link: Arc<Link>, signals: Signals) -> Result<(), Failure> {
    let asked = Arc::new(AtomicBool::new(false));
    let registered = signal_hook::flag::register(signal_hook::consts::SIGTERM, asked.clone());
    registered.map_err(|e| Failure::new(format!("SIGTERM cannot be handled: {e}")))?;
    let watch = move || {
        while !asked.load(Relaxed) {
            thread::sleep(GRACE / 10);
        }
        thread::sleep(GRACE);
        if signals.are_watched() {
            return signals.hand_on(signal_hook::consts::SIGTERM);
        }
        link.fail("it was asked to stop (SIGTERM)");
    };
    spawn("signals", watch)
}
