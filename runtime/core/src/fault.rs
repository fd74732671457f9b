//! Disturbances on purpose: a rank that stalls or fails at a given instruction, and random delays.

use std::thread::{sleep, yield_now};
use std::time::Duration;

/// What one rank shall do wrong, in its first run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub rank: usize,
    /// Number of the instruction, in schedule order.
    pub at: usize,
    pub kind: FaultKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The lane sleeps until the other ranks have given up.
    Stall,
    /// The rank ends, as if it were killed.
    Exit,
}

impl FaultKind {
    pub(crate) const fn past(self) -> &'static str {
        match self {
            FaultKind::Stall => "stalled",
            FaultKind::Exit => "exited",
        }
    }
}

/// Holds a lane up before an instruction, most often not at all. How long depends on the arguments alone.
pub(crate) fn delay(seed: u64, rank: usize, run: u64, index: u32) {
    let number = mix(mix(mix(seed) ^ rank as u64) ^ (run << 32 | u64::from(index)));
    match number % 8 {
        0..4 => {}
        4 | 5 => yield_now(),
        6 => (0..number >> 32 & 7).for_each(|_| yield_now()),
        _ => sleep(Duration::from_micros(number >> 32 & 127)),
    }
}

/// The step of splitmix64.
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}
