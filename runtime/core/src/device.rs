//! A device: memory that the host cannot touch, and streams that work off what lanes hand over.
#![allow(unsafe_code, reason = "what is handed over touches the memory of the rank later on")]

use crate::{Call, Place};

/// The memory of one rank and the streams of its lanes. A stream runs what its lane's thread submits, in that order, while
/// the thread goes on; the end of a run waits for all streams.
pub trait Device: Send + Sync + 'static {
    /// The first byte of the rank's memory, as addresses on the device are counted.
    fn base(&self) -> *mut u8;

    /// Makes the device that of the calling thread.
    fn enter(&self) -> Result<(), DeviceError>;

    /// Binds a launch to its arguments.
    fn prepare(&self, lane: usize, call: &Call<'_>) -> Result<Box<dyn Submit>, DeviceError>;

    fn record(&self, lane: usize, event: usize) -> Result<(), DeviceError>;

    /// The event was recorded in this run, on another lane.
    fn wait(&self, lane: usize, event: usize) -> Result<(), DeviceError>;

    /// Zeroed memory of the host that streams copy to and from, as long as the device lives. Asked for once.
    fn host(&self, bytes: u64) -> Result<*mut u8, DeviceError>;

    /// Between the device's memory and itself or that of the host.
    ///
    /// # Safety
    /// Until the stream has passed, nothing writes the source or touches the target.
    unsafe fn copy(&self, lane: usize, from: Place, to: Place, bytes: u64) -> Result<(), DeviceError>;

    /// Takes the bytes at once; they arrive when the stream comes by.
    ///
    /// # Safety
    /// Until the stream has passed, nothing touches the target.
    unsafe fn feed(&self, lane: usize, from: &[u8], to: u64) -> Result<(), DeviceError>;

    /// Waits until the lane's stream has done all that was submitted. Gives up when a collective has stalled, or when
    /// `over` says that another rank or lane failed.
    fn finish(&self, lane: usize, over: &dyn Fn() -> bool) -> Result<(), Unfinished>;

    /// Says that a run failed: streams may hold work for ever, and what it uses is to stay until the process ends.
    fn abandon(&self);

    /// Bytes of the memory, while no stream that writes them is busy.
    fn read(&self, from: u64, to: &mut [u8]) -> Result<(), DeviceError>;

    /// Sets bytes of the memory, while no stream is busy.
    fn write(&self, from: &[u8], to: u64) -> Result<(), DeviceError>;
}

/// A launch with its arguments.
pub trait Submit: Send + Sync {
    /// # Safety
    /// Until the stream has passed, nothing conflicts with the launch.
    unsafe fn submit(&self) -> Result<(), DeviceError>;
}

/// What the device says.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct DeviceError(pub String);

/// Why a stream is not waited for any more.
#[derive(Clone, Debug)]
pub enum Unfinished {
    /// Another rank or lane failed first.
    Over,
    /// The collective, if it is known, that was submitted and is not done.
    Failed { collective: Option<u32>, error: DeviceError },
}
