//! Element types, named dims, shapes, regions, meshes and counter-based random numbers: the words every other crate speaks.

mod config;
mod draw;
mod dtype;
mod file_form;
mod hub_cache;
mod indices;
mod limits;
mod mesh;
mod name;
mod name_pattern;
mod nearest;
mod philox;
mod quantisation;
mod ragged;
mod runs;
mod shape;

pub use config::{Case, Config, Fact, Figure, Rename, fact_at};
pub use draw::{Distribution, Init, fill};
pub use dtype::DType;
pub use file_form::{FileAxis, FileForm, braces};
pub use hub_cache::{UnclearSnapshot, hub_snapshot};
pub use indices::Indices;
pub use limits::{MAX_ELEMENTS, MAX_FLOP, MAX_PADDED_ELEMENTS, MAX_RANKS, MAX_STACK, SizeError, saturating_product};
pub use mesh::{Axis, Cut, Mesh, MeshError, Region};
pub use name::Name;
pub use name_pattern::NamePattern;
pub use nearest::nearest;
pub use philox::{Key, philox4x32_10};
pub use quantisation::Quantisation;
pub use ragged::{Count, GROUPS, MICROBATCHES, Owner, Ragged};
pub use runs::Runs;
pub use shape::{Dim, TensorType, TypeParseError};
