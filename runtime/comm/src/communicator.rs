//! A communicator: one rank's way to the others, whatever carries the bytes.
#![allow(unsafe_code, reason = "a collective reads and writes memory by its address")]

use std::sync::Arc;

use crate::{CommError, Operation, Standing};

/// One rank of a world. All ranks of a world make the same collectives ready, run them in orders that agree, and learn of
/// each other's failures.
pub trait Communicator: Send + Sync {
    fn rank(&self) -> usize;

    /// Number of ranks.
    fn world(&self) -> usize;

    /// Makes a collective ready to run any number of times. Does not wait for the other ranks.
    fn prepare(&self, operation: Operation) -> Result<Box<dyn Collective>, CommError>;

    /// Names who can tell what this rank is at when others wait for it.
    fn attach(&self, whereabouts: Arc<dyn Whereabouts>);

    /// Says that this rank failed: whoever waits for any rank stops waiting, and every later collective fails.
    fn fail(&self, why: &str);

    /// Says that this rank will run no more collectives. Those that still want it fail.
    fn leave(&self);

    /// Whether all other ranks have left.
    fn is_alone(&self) -> bool;

    /// Why no collective can run any more, if so. Asked before each instruction, so it must cost next to nothing.
    fn failure(&self) -> Option<CommError>;
}

/// A collective that is ready to run.
pub trait Collective: Send + Sync {
    /// Takes part once. When it returns, with or without success, no rank touches this rank's memory any more.
    ///
    /// # Safety
    /// The areas of the operation are valid, and until the return nothing else on this rank writes the sources or touches
    /// the targets.
    unsafe fn run(&self) -> Result<(), CommError>;
}

/// What a rank can tell about itself. It is asked from other threads, at any time.
pub trait Whereabouts: Send + Sync {
    fn standing(&self) -> Standing;

    /// Operator and place of a collective, as messages show them.
    fn collective(&self, id: u32) -> String;
}
