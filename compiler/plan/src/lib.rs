//! The plan: per class of ranks, the straight-line programs, buffers and kernels that `mmrun` runs, and the file they travel in.

mod archive;
mod buffer;
mod container;
mod coordinate;
mod header;
mod id;
mod instruction;
mod kept;
mod kernel;
mod manifest;
mod memory;
mod occupancy;
pub mod operators;
mod place;
mod program;
mod residency;
#[cfg(feature = "sample")]
pub mod sample;
mod scope;
mod text;
mod traffic;
mod verify;
mod violation;

pub use archive::{Archive, ArchiveError, Blob, BlobKind};
pub use buffer::{Buffer, BufferKind, Life, Slice, Space};
pub use container::{FORMAT_VERSION, PlanFile, PlanHash, ReadError, WriteError};
pub use coordinate::{Affine, Layout, Ranks, Term};
pub use header::Header;
pub use id::{BufferId, ClassId, EmitId, EventId, FeedId, KernelId, LaneId, ParameterId, PlaceId, ResidencyId};
pub use instruction::{Collect, CollectKind, Instruction, Launch, Op, Origin, Phase, Reduce, ReduceKind};
pub use kept::{Kept, Way};
pub use kernel::{Access, KERNEL_ABI, Kernel};
pub use manifest::{Emit, Feed, Manifest, Parameter, Source, State, StateInit, When};
pub use memory::{KindBytes, Memory, flops, memory, memory_by_kind};
pub use occupancy::{Fullest, Least, fullest, least, makers, occupancy};
pub use place::{Place, Places};
pub use program::{Body, Class, LaneKind, Plan, Program, Unit, UnitKind};
pub use residency::Residency;
pub use scope::Scope;
pub use traffic::{Traffic, sent, traffic};
#[cfg(feature = "sample")]
pub use verify::hangs_of_all_ranks;
pub use verify::{Proof, Verified, collective_fault, prove, structure, verify};
pub use violation::{Rule, Violation};
