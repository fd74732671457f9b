//! Many small pieces of work on as many threads as there are cores.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::DataError;

/// Told on the way how many pieces of what are done, and out of how many.
pub type Told<'t> = &'t (dyn Fn(&str, usize, usize) + Sync);

/// Pieces that a thread takes at a time.
const BLOCK: usize = 32;

/// What `work` gives for 0 to `count`, in order; or the first of its errors, whatever the threads did.
pub fn in_parallel<T: Send>(
    what: &str,
    count: usize,
    told: Told<'_>,
    work: impl Fn(usize) -> Result<T, DataError> + Sync,
) -> Result<Vec<T>, DataError> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(16).min(count.div_ceil(BLOCK)).max(1);
    let (next, done, failed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    // Blocks are taken in order, and a block that was begun is ended: the first error is always among those found.
    let run = || {
        let mut results = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let first = next.fetch_add(BLOCK, Ordering::Relaxed);
            let block = first.min(count)..(first + BLOCK).min(count);
            if block.is_empty() {
                break;
            }
            for i in block.clone() {
                let result = work(i);
                let is_error = result.is_err();
                results.push((i, result));
                if is_error {
                    failed.store(true, Ordering::Relaxed);
                    return results;
                }
            }
            told(what, done.fetch_add(block.len(), Ordering::Relaxed) + block.len(), count);
        }
        results
    };
    let mut results = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let mut results = run();
        for other in others {
            match other.join() {
                Ok(more) => results.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    });
    results.sort_unstable_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_the_first_error_is_given() {
        let quiet = |_: &str, _, _| {};
        let numbers = in_parallel("number", 1000, &quiet, |i| Ok(i * 2)).expect("no errors");
        assert_eq!(numbers, (0..1000).map(|i| i * 2).collect::<Vec<_>>());
        assert_eq!(in_parallel("number", 0, &quiet, Ok).expect("nothing"), [0usize; 0]);
        let refused = |i| if i % 97 == 96 { Err(DataError::format("f".as_ref(), i)) } else { Ok(()) };
        for _ in 0..20 {
            let error = in_parallel("number", 1000, &quiet, refused).expect_err("refused");
            assert_eq!(error.to_string(), "f: 96");
        }
    }
}
