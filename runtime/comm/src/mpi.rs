//! The communicator for ranks that are processes: collectives as MPI messages, reduced in the order of positions.
//!
//! MPI's own reductions promise no order, and its blocking calls do not say for whom they wait. So a collective is a set of
//! persistent messages, tested until all have arrived: the same bits as among threads, and a name for whoever is missing.
//! One thread at a time is inside MPI.
#![allow(unsafe_code, reason = "MPI is a C library")]

mod exchange;
mod messages;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mpi::environment::Universe;
use mpi::ffi;

use crate::processes::Link;
use crate::{Collective, CommError, Communicator, Hub, Kind, Operation, Whereabouts};
use exchange::Exchange;
use messages::check;

/// This process among those that MPI's launcher started.
pub struct Launched {
    rank: usize,
    world: usize,
    universe: Option<Universe>,
}

/// One rank, which is a process.
#[derive(Clone)]
pub struct Mpi {
    inner: Arc<Inner>,
}

struct Inner {
    link: Arc<Link>,
    gate: Mutex<()>,
}

impl Launched {
    /// Starts MPI. Once in a process.
    pub fn start() -> Result<Self, CommError> {
        let started = mpi::initialize_with_threading(mpi::Threading::Serialized);
        let (universe, threading) = started.ok_or_else(|| CommError::Mpi("it is running already".into()))?;
        if threading < mpi::Threading::Serialized {
            return Err(CommError::Mpi(format!("it was built for one thread ({threading:?}), and lanes are several")));
        }
        let (mut rank, mut world) = (0, 0);
        // SAFETY: MPI runs, and the integers outlive the calls.
        unsafe {
            // A failure comes back as a code, so that it can be told.
            check(ffi::MPI_Comm_set_errhandler(ffi::RSMPI_COMM_WORLD, ffi::RSMPI_ERRORS_RETURN))?;
            check(ffi::MPI_Comm_rank(ffi::RSMPI_COMM_WORLD, &mut rank))?;
            check(ffi::MPI_Comm_size(ffi::RSMPI_COMM_WORLD, &mut world))?;
        }
        Ok(Self { rank: rank as usize, world: world as usize, universe: Some(universe) })
    }

    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of ranks.
    pub fn world(&self) -> usize {
        self.world
    }

    /// Connects this rank with all others; they wait for each other up to `patience`, in each collective and in each
    /// meeting. Calls `met` when MPI has brought all together: until then there is no limit to what MPI may wait for.
    pub fn join(&self, patience: Duration, met: impl FnOnce()) -> Result<(Mpi, Arc<Link>), CommError> {
        let hub = if self.rank == 0 { Some(Hub::open(self.world)?) } else { None };
        let own = hub.as_ref().map(Hub::addresses).unwrap_or_default();
        let text = self.as_first_has(own.iter().map(|a| format!("{a} ")).collect::<String>().into_bytes())?;
        let at: Result<Vec<SocketAddr>, _> =
            String::from_utf8_lossy(&text).split_whitespace().map(str::parse).collect();
        let at = at.map_err(|e| CommError::Mpi(format!("rank 0 sent no addresses: {e}")))?;
        met();
        let link = Link::join(&at, self.rank, self.world, patience)?;
        Ok((Mpi { inner: Arc::new(Inner { link: link.clone(), gate: Mutex::new(()) }) }, link))
    }

    /// Ends MPI, after a run that went well on all ranks. Without it, the process simply ends, and the launcher sees to
    /// the others.
    pub fn finish(mut self) {
        drop(self.universe.take());
    }

    /// Rank 0's bytes, on all ranks.
    fn as_first_has(&self, mut bytes: Vec<u8>) -> Result<Vec<u8>, CommError> {
        let mut length = bytes.len() as u64;
        // SAFETY: the buffers are as long as is said, and outlive the calls.
        unsafe {
            let at = (&raw mut length).cast();
            check(ffi::MPI_Bcast(at, 1, ffi::RSMPI_UINT64_T, 0, ffi::RSMPI_COMM_WORLD))?;
            bytes.resize(length as usize, 0);
            let at = bytes.as_mut_ptr().cast();
            check(ffi::MPI_Bcast(at, length as i32, ffi::RSMPI_UINT8_T, 0, ffi::RSMPI_COMM_WORLD))?;
        }
        Ok(bytes)
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        // After a failure, MPI would wait for ranks that are gone.
        std::mem::forget(self.universe.take());
    }
}

impl Communicator for Mpi {
    fn rank(&self) -> usize {
        self.inner.link.rank()
    }

    fn world(&self) -> usize {
        self.inner.link.world()
    }

    fn prepare(&self, operation: Operation) -> Result<Box<dyn Collective>, CommError> {
        let (rank, world) = (self.rank(), self.world());
        let member = operation.group.get(operation.position) == Some(&rank);
        if !member || operation.group.iter().any(|m| *m >= world) {
            let why = format!("rank {rank} of {world} is to take part in a group of {:?}", operation.group);
            return Err(CommError::Malformed { id: operation.id, why });
        }
        if let Kind::Send { to: peer } | Kind::Receive { from: peer } = operation.kind
            && peer == operation.position
        {
            return Err(CommError::Malformed { id: operation.id, why: "a rank cannot send to itself".into() });
        }
        Ok(Box::new(Exchange::new(operation, self.inner.clone())?))
    }

    fn attach(&self, whereabouts: Arc<dyn Whereabouts>) {
        self.inner.link.attach(whereabouts);
    }

    fn fail(&self, why: &str) {
        self.inner.link.fail(why);
    }

    fn leave(&self) {
        self.inner.link.leave();
    }

    fn is_alone(&self) -> bool {
        self.inner.link.is_alone()
    }

    fn failure(&self) -> Option<CommError> {
        self.inner.link.failure()
    }
}

impl Inner {
    /// Held by the thread that is inside MPI.
    fn enter(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
