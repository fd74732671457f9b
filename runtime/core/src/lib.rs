//! The executor: runs one rank's programs, lane by lane, in memory that was laid out when the plan was made.

mod arena;
mod code;
mod error;
mod events;
mod executor;
mod feeder;
mod kernels;
mod lane;
mod pool;
mod trace;

pub use error::ExecError;
pub use executor::{Executor, Options, Run};
pub use feeder::{FeedError, FeedSource, Feeder};
pub use kernels::{Argument, Call, Interpreted, Kernels};
pub use trace::TraceWriter;
