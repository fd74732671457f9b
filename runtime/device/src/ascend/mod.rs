//! Ascend through CANN: its C interface, declared by hand and opened at run time.

pub mod abi;
mod library;

pub use library::{Cann, CannError};
