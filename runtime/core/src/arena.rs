//! The arenas: all memory of a rank, mapped once, in which buffers are ranges; one of the device and one of the host.
#![allow(
    unsafe_code,
    reason = "kernels work on raw memory; that lanes do not race in it is what the plan verifier proves"
)]

use std::sync::Arc;

use memmap2::{Advice, MmapMut};
use plan::{Body, Class, Slice, Space};

use crate::{Device, ExecError};

/// Bytes of an arena by their offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub space: Space,
    pub offset: u64,
}

impl Place {
    pub fn of(class: &Class, body: &Body, slice: &Slice) -> Self {
        let buffer = body.buffer(class, slice.buffer);
        let (space, offset) = buffer.map_or((Space::Device, 0), |b| (b.space, b.offset));
        Self { space, offset: offset + slice.offset }
    }
}

pub struct Arena {
    base: *mut u8,
    bytes: u64,
    /// Keeps the memory; nothing goes through it but `base`.
    _memory: Memory,
}

enum Memory {
    Host { _map: MmapMut },
    Device { _device: Arc<dyn Device> },
}

// SAFETY: the arena is plain memory with no ties to a thread. Who may touch which bytes when is up to the callers of its
// unsafe methods; the safe ones borrow the arena.
unsafe impl Send for Arena {}
unsafe impl Sync for Arena {}

impl Arena {
    /// Zeroed memory on a page boundary.
    pub fn new(bytes: u64) -> Result<Self, ExecError> {
        let length = usize::try_from(bytes.max(1)).map_err(|_| ExecError::Memory { bytes })?;
        let mut memory = MmapMut::map_anon(length).map_err(|_| ExecError::Memory { bytes })?;
        // Large pages spare matrix kernels most of their address look-ups; where there are none, small ones do.
        let _ = memory.advise(Advice::HugePage);
        Ok(Self { base: memory.as_mut_ptr(), bytes, _memory: Memory::Host { _map: memory } })
    }

    /// The memory of a device, of which the arena gives addresses alone.
    pub fn of(device: Arc<dyn Device>, bytes: u64) -> Self {
        Self { base: device.base(), bytes, _memory: Memory::Device { _device: device } }
    }

    /// Memory of the host that a device copies to and from.
    pub fn beside(device: Arc<dyn Device>, bytes: u64) -> Result<Self, ExecError> {
        Ok(Self { base: device.host(bytes)?, bytes, _memory: Memory::Device { _device: device } })
    }

    /// The first of `bytes` bytes at `offset`.
    ///
    /// # Panics
    /// If they are not inside the arena; the plan verifier has shown that they are.
    pub fn at(&self, offset: u64, bytes: u64) -> *mut u8 {
        let end = offset.checked_add(bytes).expect("a range inside the arena");
        assert!(end <= self.bytes, "bytes {offset}..{end} are outside the arena");
        // Not `add`, since memory of a device is no object of this program.
        self.base.wrapping_add(offset as usize)
    }

    /// # Safety
    /// The memory is the host's, and nothing writes these bytes while the slice lives.
    pub unsafe fn read(&self, offset: u64, bytes: u64) -> &[u8] {
        // SAFETY: inside the mapping, which began as zeros; no writer, says the caller.
        unsafe { std::slice::from_raw_parts(self.at(offset, bytes), bytes as usize) }
    }

    /// # Safety
    /// The memory is the host's, and nothing else touches these bytes while the slice lives.
    #[allow(clippy::mut_from_ref, reason = "lanes share the arena and write to ranges that the plan keeps apart")]
    pub unsafe fn write(&self, offset: u64, bytes: u64) -> &mut [u8] {
        // SAFETY: inside the mapping, which began as zeros; nobody else there, says the caller.
        unsafe { std::slice::from_raw_parts_mut(self.at(offset, bytes), bytes as usize) }
    }

    /// # Safety
    /// The memory is the host's, nothing writes the source, nothing else touches the target, and they do not overlap.
    pub unsafe fn copy(&self, from: u64, to: (&Arena, u64), bytes: u64) {
        // SAFETY: both ranges are inside their mappings; the rest says the caller.
        unsafe { std::ptr::copy_nonoverlapping(self.at(from, bytes), to.0.at(to.1, bytes), bytes as usize) }
    }
}
