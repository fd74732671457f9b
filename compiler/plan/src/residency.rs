//! A residency: a named set of parameters that lie on the device only while one of its programs runs.

use serde::{Deserialize, Serialize};
use types::Name;

/// Its buffers are those of life [`crate::Life::Resident`] with its id, in each class; its programs name it as
/// [`crate::Program::residency`]. Entering it copies its buffers from the host's memory into the arena, to bytes that all
/// residencies share: a class needs memory for what always lies there and for its largest residency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Residency {
    pub name: Name,
}
