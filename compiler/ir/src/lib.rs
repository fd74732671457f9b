//! The graph: operators, functions, programs, text form, verifier and interpreter.

mod arena;
mod array;
mod builder;
mod call;
mod extent;
mod factors;
mod family;
mod function;
mod indices;
mod interpret;
mod mismatch;
mod module;
mod op;
pub mod ops;
mod rewrite;
mod sharding;
mod spmd;
mod text;
mod ty;
mod verify;

pub use arena::{Arena, Id};
pub use array::{Array, dot, for_each_index, strides_in};
pub use builder::Builder;
pub use call::same_sizes;
pub use extent::{MAX_BYTES, MAX_OPERATORS, Measure, TooLong, check_extent};
pub use factors::{Factor, FactorKind, Factors};
pub use family::{family, indexed_name};
pub use function::{Call, Function, FunctionKind, Inst, Node, NodeId};
pub use interpret::{Interpreter, Precision, Value};
pub use mismatch::Mismatch;
pub use module::{
    Feed, Holds, Input, Level, Logical, Module, Output, Parameter, ParameterInfo, Program, ShardingHint, State, Stored,
};
pub use op::{Class, Collective, NodeIds, PartContext, PartOf, Semantics, Types, Vjp};
pub use ops::Op;
pub use rewrite::Rewriter;
pub use sharding::{Assignment, Axes, DimSharding, PartialKind, Sharding, ring, split};
pub use spmd::SpmdBuilder;
pub use text::{ParseError, parse};
pub use ty::Type;
pub use verify::{MAX_CALLS, Violation, verify};
