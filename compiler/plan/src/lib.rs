//! The plan: per class of ranks, the straight-line programs, buffers and kernels that `mmrun` runs, and the file they travel in.

mod buffer;
mod coordinate;
mod header;
mod id;
mod instruction;
mod kernel;
mod manifest;
mod place;
mod program;

pub use buffer::{Buffer, BufferKind, Life, Slice};
pub use coordinate::{Affine, Layout, Ranks, Term};
pub use header::Header;
pub use id::{BufferId, ClassId, EmitId, EventId, FeedId, KernelId, LaneId, PlaceId};
pub use instruction::{Collect, CollectKind, Instruction, Launch, Op, Reduce};
pub use kernel::{Access, KERNEL_ABI, Kernel};
pub use manifest::{Emit, Feed, Manifest, Parameter, Source, State, StateInit, When};
pub use place::{Place, Places};
pub use program::{Body, Class, LaneKind, Plan, Program};
