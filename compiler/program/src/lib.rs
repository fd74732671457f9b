//! The program level, between the graph and the plan: for each rank of a pipeline, a straight line of instructions over
//! buffers that have no offsets yet.
//!
//! Passes change a [`RankProgram`] step by step: stages, prefetch, updates in place, hidden communication, recompute, lanes,
//! live ranges, offsets. [`verify()`] says after each of them what must hold. The text form reads back ([`parse`]).

mod def_use;
mod instruction;
mod module;
mod places;
mod plan_of;
mod rank;
mod text;
mod verify;

pub use def_use::{DefUse, User};
pub use instruction::{Instruction, Joins, Origin, is_message};
pub use module::{Program, RankModule};
pub use places::{Frame, PlaceTable, Site};
pub use plan_of::{place_persistent, plan};
pub use rank::{Lane, Pipeline, RankProgram, Turn, Update};
pub use text::{ParseError, parse};
pub use verify::{Violation, verify};
