//! Collectives between the ranks of a run: what the executor asks of a communicator, the one for ranks of one process, and
//! the one for ranks that are processes.

mod communicator;
mod error;
mod local;
#[cfg(feature = "mpi")]
mod mpi;
mod operation;
mod processes;
mod reduce;
mod report;

#[cfg(feature = "mpi")]
pub use crate::mpi::{Launched, Mpi};
pub use communicator::{Collective, Communicator, Whereabouts};
pub use error::CommError;
pub use local::Local;
pub use operation::{Area, Kind, Operation};
pub use processes::{Hub, Link, worked};
pub use report::{Cause, LaneStanding, Missing, Report, Standing, Waiting};
