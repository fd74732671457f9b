//! Counts of a compilation, and by which power of the program's size they grow.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A large allocation is work to fill as well.
        COUNT.fetch_add(1 + layout.size() as u64 / 256, Relaxed);
        // SAFETY: the caller's promises are the ones the system's allocator wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations so far, on all threads.
pub fn now() -> u64 {
    COUNT.load(Relaxed)
}

#[derive(Clone, Copy, Debug)]
pub struct Counts {
    pub allocations: u64,
    /// Of the plan, or kernels where there is none.
    pub instructions: u64,
    /// Of kernels' code.
    pub bytes: u64,
}

impl Counts {
    /// By what is counted: the power of the size with which it grows from these counts to the larger ones.
    pub fn powers(&self, larger: &Counts, sizes: [usize; 2]) -> [(&'static str, f64); 3] {
        let ratio = (sizes[1] as f64 / sizes[0] as f64).ln();
        let power = |small: u64, large: u64| ((large.max(1) as f64) / (small.max(1) as f64)).ln() / ratio;
        [
            ("allocations", power(self.allocations, larger.allocations)),
            ("instructions", power(self.instructions, larger.instructions)),
            ("bytes of code", power(self.bytes, larger.bytes)),
        ]
    }
}
