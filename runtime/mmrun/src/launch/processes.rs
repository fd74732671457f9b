//! One process for each rank, over MPI.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use comm::{Link, Mpi};
use data::Together;
use plan::{Header, PlanHash};

use super::{Launch, Seats};
use crate::failure::Failure;
use crate::setup::mesh_of;

/// Between the signal to stop and the end of the run: for others to say what they know.
const GRACE: Duration = Duration::from_millis(300);

/// Between a failure and the end of the process: longer than others wait for answers before they say what they know.
const LINGER: Duration = Duration::from_secs(2);

pub struct Processes {
    launched: comm::Launched,
    rank: Mpi,
    link: Arc<Link>,
    /// Ranks on this machine.
    here: usize,
}

impl Processes {
    /// Meets the others, within `patience`.
    pub fn start(launch: &Launch, patience: Duration) -> Result<Self, Failure> {
        let launched = comm::Launched::start()?;
        if launched.world() != launch.world {
            let (by, says, is) = (launch.by, launch.world, launched.world());
            return Err(Failure::new(format!("{by} says that there are {says} ranks, and MPI that there are {is}"))
                .help("was this program built with the MPI whose mpirun (or srun --mpi) started it?"));
        }
        let (rank, link) = launched.join(patience)?;
        stop_on_signal(link.clone()).map_err(|e| Failure::new(format!("SIGTERM cannot be handled: {e}")))?;
        Ok(Self { launched, rank, link, here: launch.here })
    }

    pub fn seats(&self, header: &Header, hash: PlanHash, patience: Duration) -> Result<Seats, Failure> {
        let (ranks, started) = (header.world(), self.link.world());
        if ranks != started {
            let mesh = if ranks > 1 { format!("{ranks} ranks, {}", mesh_of(&header.mesh)) } else { "one rank".into() };
            return Err(Failure::new(format!("the plan is for {mesh}, and {started} were started"))
                .help(format!("start {ranks}, or compile the plan for a mesh of {started}")));
        }
        let hashes = self.link.gather("load the plan", hash.to_string().into_bytes(), Some(patience))?;
        if let Some(other) = hashes.iter().position(|other| *other != hashes[0]) {
            let hash = |rank: usize| String::from_utf8_lossy(&hashes[rank]).into_owned();
            let what = format!("ranks 0 and {other} were given different plans: {} and {}", hash(0), hash(other));
            return Err(Failure::new(what));
        }
        let communicators = vec![Some(Arc::new(self.rank.clone()) as _)];
        Ok(Seats { communicators, together: Together::with(self.link.clone()), sharing: self.here })
    }

    pub fn finish(self, result: Result<(), Failure>) -> Result<(), Failure> {
        match &result {
            Ok(()) => {
                self.link.leave();
                self.launched.finish();
            }
            Err(failure) => self.link.fail(failure.message()),
        }
        result.map_err(|failure| failure.of_rank(self.link.rank(), LINGER))
    }
}

/// Launchers ask all ranks to stop as soon as one of them is gone. This gives the others time to say so themselves.
fn stop_on_signal(link: Arc<Link>) -> std::io::Result<()> {
    let asked = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, asked.clone())?;
    let watch = move || {
        while !asked.load(Relaxed) {
            thread::sleep(GRACE / 10);
        }
        thread::sleep(GRACE);
        link.fail("it was asked to stop (SIGTERM)");
    };
    thread::Builder::new().name("signals".into()).spawn(watch).map(drop)
}
