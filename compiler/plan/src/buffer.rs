//! A buffer: a named range of a rank's arena, with the time during which its bytes mean something.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use types::{Name, TensorType};

use crate::{BufferId, ResidencyId};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum BufferKind {
    Parameter,
    /// Moments and master weights.
    Optimizer,
    /// The step and what else lives from step to step.
    State,
    Gradient,
    Activation,
    Feed,
    Workspace,
    Comm,
}

impl BufferKind {
    pub const ALL: [BufferKind; 8] = [
        BufferKind::Parameter,
        BufferKind::Optimizer,
        BufferKind::State,
        BufferKind::Gradient,
        BufferKind::Activation,
        BufferKind::Feed,
        BufferKind::Workspace,
        BufferKind::Comm,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            BufferKind::Parameter => "parameter",
            BufferKind::Optimizer => "optimizer",
            BufferKind::State => "state",
            BufferKind::Gradient => "gradient",
            BufferKind::Activation => "activation",
            BufferKind::Feed => "feed",
            BufferKind::Workspace => "workspace",
            BufferKind::Comm => "comm",
        }
    }
}

impl fmt::Display for BufferKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Whose memory a buffer is in. Each has an arena of its own; what is in the host's is only copied from and to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Space {
    #[default]
    Device,
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    /// Lives from step to step, shared by all programs of the plan.
    Persistent,
    /// Lives from step to step, and sleeps in the host's memory while another residency is entered: it shares bytes of the
    /// arena with the buffers of other residencies.
    Resident(ResidencyId),
    /// Both included, as indices into [`crate::Body::instructions`]. Whatever touches the buffer, on any lane, is ordered
    /// after the first and before the last, or is one of them.
    Span { first: u32, last: u32 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Buffer {
    pub name: Name,
    pub kind: BufferKind,
    pub space: Space,
    /// First byte in the arena of its space.
    pub offset: u64,
    pub bytes: u64,
    /// What this rank holds, at its capacity; none for raw scratch.
    pub ty: Option<Arc<TensorType>>,
    pub life: Life,
}

impl Buffer {
    pub const fn is_persistent(&self) -> bool {
        matches!(self.life, Life::Persistent | Life::Resident(_))
    }

    /// Whether its bytes are in the arena while a program of this residency runs.
    pub fn is_there(&self, residency: Option<ResidencyId>) -> bool {
        !matches!(self.life, Life::Resident(own) if Some(own) != residency)
    }

    /// First byte where both arenas are seen as one range of addresses. No arena reaches so far that they would meet.
    pub(crate) const fn address(&self) -> u64 {
        match self.space {
            Space::Device => self.offset,
            Space::Host => self.offset | 1 << 62,
        }
    }

    pub const fn on_host(&self) -> bool {
        matches!(self.space, Space::Host)
    }

    /// One past the last byte in the arena; saturates, and the verifier then finds it outside.
    pub const fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes)
    }
}

/// A range of bytes of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Slice {
    pub buffer: BufferId,
    /// From the start of the buffer.
    pub offset: u64,
    pub bytes: u64,
}

impl Slice {
    pub const fn whole(buffer: BufferId, bytes: u64) -> Self {
        Self { buffer, offset: 0, bytes }
    }
}
