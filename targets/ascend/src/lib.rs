//! The Ascend target: segments between collectives as GE graphs in CANN's own format, `.air`.
//!
//! # What a segment is
//!
//! A kernel of the plan is a *segment*: everything that a function computes between two collectives ([`group`]). Its
//! file is one serialised `ge.proto.ModelDef` with one graph of static shapes:
//!
//! * Inputs are nodes `arg0`, `arg1`, ... of type `Data`, whose attribute `index` is their number: the kernel's
//!   parameters in order. All are there, also one that nothing reads.
//! * Outputs are the inputs of the one `NetOutput`, in order: the kernel's results.
//! * A launch's arguments are, in this order, a slice for each parameter, a slice for each result, and, if the kernel
//!   declares workspace, one more of that many bytes for all that GE needs inside. Slices are tightly packed row-major
//!   tensors (layout ND) on multiples of 512 bytes within their buffers' alignment, of the element types of the
//!   descriptors; a bool is a byte, 0 or 1; a scalar has the shape `[]` and one element.
//! * `Kernel::in_place` lists pairs of arguments that the plan may put on the same bytes. Such a pair is an operand and
//!   a result of one elementwise operator or of ApplyAdamW, and nothing else in the segment reads that operand, so that
//!   reading it from a copy, or writing the result through one, gives the same.
//! * A segment depends on nothing but its inputs: no rank, no step, no variables.
//!
//! Nodes are named `<operator>_<its node in the kernel>_<CANN's operator>_<number>`: an error of CANN that names a node
//! leads back to `mmc explain --listing` and from there to the model.
//!
//! `mmc pack` ([`pack`]) puts `.om` files in the place of the graphs. After it every launch's last argument is a slice, of
//! the segment's real working memory, of one persistent buffer called `workspace`: a model can be loaded once with its
//! working memory there (`aclmdlLoadFromMemWithMem`), since launches follow each other on the compute lane. Memory for
//! constants is not in the arena; `pack` counts it beside, with HCCL's own buffers, against the device's memory.
//!
//! `emit` puts the files into one [`plan::Archive`] under the kernels' symbols, with a report of what became of each
//! operator ([`report`]).
//!
//! # What is not known without a device
//!
//! That FlashAttentionScoreGrad takes the log of the sum as the maximum and 1 as the sum, as its formula does.

pub mod check;
pub mod columns;
pub mod dtype;
pub mod encode;
pub mod export;
pub mod graph;
pub mod group;
pub mod infer;
pub mod lower;
pub mod memory;
pub mod om;
pub mod pack;
pub mod proto;
pub mod report;
pub mod soc;
pub mod table;
mod target;

pub use soc::{SOCS, Series, Soc};
pub use target::AscendTarget;
