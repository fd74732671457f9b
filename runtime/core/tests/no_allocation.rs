//! A step after the first allocates nothing: counted by an allocator of this test's own.
#![allow(unsafe_code, reason = "a counting allocator has to be a GlobalAlloc")]

mod line;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use comm::{Communicator, Local};
use plan::{KernelId, Verified, sample};
use runtime_core::{Argument, Executor, Feeder, Interpreted, Options};

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

/// The same on four ranks, whose collectives go through the communicator of one process.
fn on_four_ranks() {
    let plan = Verified::new(sample::grid()).expect("a plan that is right");
    let together = Barrier::new(5);
    std::thread::scope(|scope| {
        for communicator in Local::world(4, Some(Duration::from_secs(60))) {
            let (plan, together) = (&plan, &together);
            scope.spawn(move || {
                let kernels = Interpreted::new(plan.plan(), light);
                let options = Options { threads: 2, ..Options::default() };
                let communicator: Arc<dyn Communicator> = Arc::new(communicator);
                let mut executor = Executor::new(plan, kernels, Some(communicator), &options).expect("an executor");
                let mut feeder = Feeder::new(&executor, 0, line::Ramp::default(), 0, None).expect("a feeder");
                for steps in [3, 50, 0] {
                    for _ in 0..steps {
                        executor.run(0, &mut feeder).expect("a step");
                    }
                    // All are done before the count is taken, and nobody goes on before that.
                    together.wait();
                    together.wait();
                }
            });
        }
        let mut counts = [0; 2];
        for count in &mut counts {
            together.wait();
            *count = COUNT.load(SeqCst);
            together.wait();
        }
        together.wait();
        together.wait();
        assert_eq!(counts[1] - counts[0], 0);
    });
}

fn main() {
    on_four_ranks();
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
