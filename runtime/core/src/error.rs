//! What can go wrong between a plan and its last step.

use plan::Violation;
use types::Name;

use crate::FeedError;

#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("the plan is not safe to run: {}", .0.first().map(ToString::to_string).unwrap_or_default())]
    Unsafe(Vec<Violation>),
    #[error("the plan has no rank {rank}; its mesh has {world}")]
    NoSuchRank { rank: usize, world: usize },
    #[error("the plan needs {bytes} bytes of memory in one piece, and the system does not give them")]
    Memory { bytes: u64 },
    #[error("program `{program}` has a collective, {what}, and this version of the runtime runs none")]
    Collective { program: Name, what: String },
    #[error("program `{program}` gives `{emit}` twice in one run")]
    EmittedTwice { program: Name, emit: Name },
    #[error("a thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
    #[error("feed `{feed}` of step {step}: {error}")]
    Feed { feed: Name, step: u64, error: FeedError },
    #[error("`{kernel}` panicked, at {place}")]
    Kernel { kernel: Name, place: String },
}
