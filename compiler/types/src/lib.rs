//! Element types, named dims, shapes, regions, meshes and counter-based random numbers: the words every other crate speaks.

mod config;
mod draw;
mod dtype;
mod indices;
mod mesh;
mod name;
mod nearest;
mod philox;
mod shape;

pub use config::{Config, Fact, Figure};
pub use draw::{Distribution, Init, fill};
pub use dtype::DType;
pub use indices::Indices;
pub use mesh::{Axis, Cut, Mesh, MeshError, Region};
pub use name::Name;
pub use nearest::nearest;
pub use philox::{Key, philox4x32_10};
pub use shape::{Dim, TensorType, TypeParseError};
