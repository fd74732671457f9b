//! Predictions: machines and their limits, the time of each instruction on one, and the simulator that plays a plan's lanes.

mod collective;
mod efficiency;
mod fit;
mod launch;
mod machine;
mod simulate;

pub use collective::{Exchange, Groups};
pub use efficiency::{Crooked, Efficiency};
pub use fit::{Rates, Timed, rates};
pub use launch::{KernelTypes, Work, kernel_types, seconds_of_kernel, seconds_of_launch, seconds_of_work};
pub use machine::{Device, Link, Machine, MachineError, Server, built_in, built_in_names, typical};
pub use simulate::{LaneSpan, Prediction, Stuck, simulate};
