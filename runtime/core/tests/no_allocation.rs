//! A step after the first allocates nothing: counted by an allocator of this test's own.
#![allow(unsafe_code, reason = "a counting allocator has to be a GlobalAlloc")]

mod line;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use plan::{KernelId, sample};
use runtime_core::{Argument, Feeder, Interpreted, Options};

struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, SeqCst);
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

/// Touches its arguments and allocates nothing.
fn light(kernel: KernelId, args: &mut [Argument<'_>], _: &[i64]) {
    for bytes in args.iter_mut().filter_map(Argument::bytes_mut) {
        bytes.fill(kernel.0 as u8);
    }
}

fn main() {
    for (plan, trace) in [(sample::line(), false), (sample::two_lanes(), false), (sample::two_lanes(), true)] {
        let kernels = Interpreted::new(&plan, light);
        let options = Options { threads: 3, trace, ..Options::default() };
        let mut executor = line::executor_with(plan, kernels, &options).expect("an executor");
        let mut feeder = Feeder::new(&executor, 0, line::Ramp::default(), 0, None).expect("a feeder");
        for _ in 0..3 {
            executor.run(0, &mut feeder).expect("a step");
        }
        let before = COUNT.load(SeqCst);
        for _ in 0..50 {
            executor.run(0, &mut feeder).expect("a step");
        }
        assert_eq!(COUNT.load(SeqCst) - before, 0);
    }
}
