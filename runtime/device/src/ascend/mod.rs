//! Ascend through CANN: its C interface, declared by hand and opened at run time, and a rank's device and communicators on it.

pub mod abi;
mod device;
mod errors;
mod group;
mod library;
mod model;

pub use device::AscendDevice;
pub use group::AscendCommunicator;
pub use library::{Cann, CannError};
pub use model::{Segments, SegmentsError};
