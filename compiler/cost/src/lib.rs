//! Predictions: machines and their limits, the time of each instruction on one, the simulator that plays a plan's lanes, and
//! the timelines of pipelines.

mod collective;
mod efficiency;
mod fit;
mod lane;
mod launch;
mod machine;
mod pipeline;
mod simulate;

pub use collective::{Exchange, Groups};
pub use efficiency::{Crooked, Efficiency};
pub use fit::{Rates, Timed, rates};
pub use lane::{Lane, Run};
pub use launch::{KernelTypes, Work, kernel_types, seconds_of_kernel, seconds_of_launch, seconds_of_work};
pub use machine::{Device, Link, Machine, MachineError, Server, built_in, built_in_names, typical};
pub use pipeline::{Invalid, Layout, Timeline, Unit, UnitSpan};
pub use simulate::{LaneSpan, Prediction, Stuck, simulate};
