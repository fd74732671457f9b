//! The executor: runs one rank's programs, lane by lane, in memory that was laid out when the plan was made.

mod arena;
mod code;
mod device;
mod error;
mod events;
mod executor;
mod fault;
mod feeder;
mod freshness;
mod kernels;
mod lane;
mod machine;
mod mirror;
mod poison;
mod pool;
mod progress;
mod residence;
mod trace;

pub use arena::Place;
pub use device::{Device, DeviceError, Submit, Unfinished};
pub use error::ExecError;
pub use executor::{Executor, Options, Run};
pub use fault::{Fault, FaultKind};
pub use feeder::{FeedError, FeedSource, Feeder, HostFeeds};
pub use kernels::{Argument, Call, Interpreted, Kernels};
pub use trace::TraceWriter;
