//! The arena: all memory of a rank, allocated once, in which buffers are ranges.
#![allow(
    unsafe_code,
    reason = "kernels work on raw memory; that lanes do not race in it is what the plan verifier proves"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use crate::ExecError;

pub struct Arena {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the arena is plain memory with no ties to a thread. Who may touch which bytes when is up to the callers of its
// unsafe methods; the safe ones borrow the arena.
unsafe impl Send for Arena {}
unsafe impl Sync for Arena {}

impl Arena {
    /// Zeroed memory on a page boundary.
    pub fn new(bytes: u64) -> Result<Self, ExecError> {
        let error = ExecError::Memory { bytes };
        let size = usize::try_from(bytes.max(1)).ok();
        let Some(layout) = size.and_then(|s| Layout::from_size_align(s, 4096).ok()) else { return Err(error) };
        // SAFETY: the layout has a size above zero.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(error)?;
        Ok(Self { base, layout })
    }

    /// The first of `bytes` bytes at `offset`.
    ///
    /// # Panics
    /// If they are not inside the arena; the plan verifier has shown that they are.
    pub fn at(&self, offset: u64, bytes: u64) -> *mut u8 {
        let end = offset.checked_add(bytes).expect("a range inside the arena");
        assert!(end <= self.layout.size() as u64, "bytes {offset}..{end} are outside the arena");
        // SAFETY: just checked to be inside the allocation (or one past its end, for no bytes).
        unsafe { self.base.as_ptr().add(offset as usize) }
    }

    /// # Safety
    /// Nothing writes these bytes while the slice lives.
    pub unsafe fn read(&self, offset: u64, bytes: u64) -> &[u8] {
        // SAFETY: inside the allocation, initialised (zeroed) bytes; no writer, says the caller.
        unsafe { std::slice::from_raw_parts(self.at(offset, bytes), bytes as usize) }
    }

    /// # Safety
    /// Nothing else touches these bytes while the slice lives.
    #[allow(clippy::mut_from_ref, reason = "lanes share the arena and write to ranges that the plan keeps apart")]
    pub unsafe fn write(&self, offset: u64, bytes: u64) -> &mut [u8] {
        // SAFETY: inside the allocation, initialised (zeroed) bytes; nobody else there, says the caller.
        unsafe { std::slice::from_raw_parts_mut(self.at(offset, bytes), bytes as usize) }
    }

    /// # Safety
    /// Nothing writes the source, nothing else touches the target, and they do not overlap.
    pub unsafe fn copy(&self, from: u64, to: u64, bytes: u64) {
        // SAFETY: both ranges are inside the allocation; the rest says the caller.
        unsafe { std::ptr::copy_nonoverlapping(self.at(from, bytes), self.at(to, bytes), bytes as usize) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}
