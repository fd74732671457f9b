//! Why a collective cannot be made ready, or did not happen.

use std::io;
use std::sync::Arc;

use crate::Report;

#[derive(Clone, Debug, thiserror::Error)]
pub enum CommError {
    #[error("collective c{id} does not fit its ranks: {why}")]
    Malformed { id: u32, why: String },
    #[error(
        "ranks {first} and {second} do not mean the same by collective c{id}: {first_is} and {second_is}; \
         were they given different plans?"
    )]
    Mismatch { id: u32, first: usize, second: usize, first_is: String, second_is: String },
    #[error("rank {rank} has collective c{id} twice")]
    Twice { id: u32, rank: usize },
    #[error("rank {rank} cannot reach rank 0 at {at}: {error}")]
    Unreachable { rank: usize, at: String, error: Arc<io::Error> },
    #[error("the place where ranks meet cannot be opened: {0}")]
    Hub(Arc<io::Error>),
    #[error("to {what}, this rank has {bytes} bytes to tell the others, and a message holds {most}")]
    TooLarge { what: String, bytes: usize, most: usize },
    /// What carries the bytes on a device says so.
    #[error("{0}")]
    Device(String),
    #[error("MPI: {0}")]
    Mpi(String),
    /// The world has ended, by a rank that stalled, failed or left.
    #[error(transparent)]
    Ended(Arc<Report>),
}
