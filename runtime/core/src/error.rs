//! What can go wrong between a plan and its last step.

use comm::CommError;
use types::Name;

use crate::{DeviceError, FaultKind, FeedError};

#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("the plan is for {plan} ranks ({mesh}), and this run has {world}")]
    World { plan: usize, mesh: String, world: usize },
    #[error("the plan needs {bytes} bytes of memory in one piece, and the system does not give them")]
    Memory { bytes: u64 },
    #[error("program `{program}` has a collective, {what}, and there are no ranks to run it with")]
    Collective { program: Name, what: String },
    #[error("program `{program}` has a collective that cannot run, {what}: {error}")]
    Refused { program: Name, what: String, error: CommError },
    /// A rank failed or stalled, and with it the run of all ranks.
    #[error(transparent)]
    Comm(CommError),
    #[error("rank {rank} {} on purpose, at {what}", .kind.past())]
    Fault { rank: usize, kind: FaultKind, what: String },
    #[error("no fault can be made to happen at instruction #{at} of rank {rank}: {why}")]
    NoFault { rank: usize, at: usize, why: &'static str },
    #[error("program `{program}` gives `{emit}` twice in one run")]
    EmittedTwice { program: Name, emit: Name },
    #[error("a thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
    #[error("feed `{feed}` of step {step}: {error}")]
    Feed { feed: Name, step: u64, error: FeedError },
    #[error("`{kernel}` panicked, at {place}")]
    Kernel { kernel: Name, place: String },
    #[error("the device failed: {0}")]
    Device(#[from] DeviceError),
    #[error("{what}: {error}")]
    OnDevice { what: String, error: DeviceError },
    #[error("poisoned memory is for plans on the CPU; this plan runs on a device")]
    PoisonedDevice,
    #[error("the executor panicked, at {what}")]
    Panic { what: String },
}

impl ExecError {
    /// Whether another rank's failure ended this run: that rank has the error to show first.
    pub fn is_of_a_peer(&self) -> bool {
        matches!(self, ExecError::Comm(CommError::Ended(_)))
    }
}
