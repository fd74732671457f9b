//! Collectives between the ranks of a run: what the executor asks of a communicator, and the one for ranks of one process.

mod communicator;
mod error;
mod local;
mod operation;
mod reduce;
mod report;

pub use communicator::{Collective, Communicator, Whereabouts};
pub use error::CommError;
pub use local::Local;
pub use operation::{Area, Kind, Operation};
pub use report::{Cause, LaneStanding, Missing, Report, Standing, Waiting};
