//! Random cases on all cores, each a row of numbers; one that fails is made simpler and printed.
//!
//! `PLAN_CASES=100000` runs more cases than usual, `PLAN_SEED=17` begins with another.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};

use ir::Module;
use passes::{Context, Pipeline};
use types::DType;

use crate::{Values, apart, largest, tape};

/// A case that failed, as text, and why.
struct Failure {
    case: String,
    reason: String,
}

/// Outcomes of `usual` cases, or as many as asked for; a case gets its numbers, and gives its text as soon as it has one.
///
/// # Panics
/// If a case fails.
pub fn run<T: Send>(usual: u64, case: impl Fn(&[u32], &mut String) -> Result<T, String> + Sync) -> Vec<T> {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let (cases, first) = (number("PLAN_CASES", usual), number("PLAN_SEED", 0));
    let (next, all) = (AtomicU64::new(first), Mutex::new((vec![], BTreeMap::new())));
    let one = |numbers: &[u32]| quietly(|| caught(numbers, &case));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + cases {
                        return;
                    }
                    let outcome = one(&tape::of_seed(seed));
                    let mut all = all.lock().expect("outcomes");
                    match outcome {
                        Ok(outcome) => all.0.push(outcome),
                        Err(failure) => drop(all.1.insert(seed, failure.reason)),
                    }
                }
            });
        }
    });
    let (outcomes, failed) = all.into_inner().expect("outcomes");
    if let Some(seed) = failed.keys().next() {
        for (seed, reason) in failed.iter().take(30) {
            let _ = writeln!(std::io::stdout(), "seed {seed}: {}", reason.lines().next().unwrap_or_default());
        }
        let simple = tape::shrink(&tape::of_seed(*seed), |numbers| one(numbers).is_err());
        let failure = one(&simple).err();
        let Failure { case, reason } = failure.unwrap_or_else(|| Failure { case: String::new(), reason: "?".into() });
        panic!("seed {seed} (PLAN_SEED={seed} PLAN_CASES=1) and {} more:\n{case}\n{reason}", failed.len() - 1);
    }
    outcomes
}

/// Runs without a message for each panic: they are results here.
fn quietly<T>(run: impl FnOnce() -> T) -> T {
    static ONCE: Once = Once::new();
    thread_local! { static QUIET: Cell<bool> = const { Cell::new(false) } }
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    QUIET.set(true);
    let result = run();
    QUIET.set(false);
    result
}

fn caught<T>(numbers: &[u32], case: impl Fn(&[u32], &mut String) -> Result<T, String>) -> Result<T, Failure> {
    let mut text = String::new();
    let result = catch_unwind(AssertUnwindSafe(|| case(numbers, &mut text)));
    let result = result.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        Err(format!("panicked: {}", said.or(panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()))
    });
    result.map_err(|reason| Failure { case: text, reason })
}

/// Runs a pipeline of passes; an error with its notes, on one line.
pub fn passes(text: &str, module: &mut Module, after: impl FnMut(&str, &Module)) -> Result<(), String> {
    let pipeline = Pipeline::parse(text).map_err(|e| e.to_string())?;
    let mut cx = Context::default();
    pipeline.run(module, &mut cx, after).map_err(|e| {
        let notes = e.0.iter().flat_map(|d| &d.notes).map(ToString::to_string).collect::<Vec<_>>();
        format!("{e} {}", notes.join(" "))
    })
}

/// Sums are taken in another order on a mesh, which matters as much as rounding does: `noise` is without any.
pub fn close(found: &Values, expected: &Values, noise: &Values, float: DType) -> Result<(), String> {
    let scale = |name: &str, want: &[f64]| {
        let rounding = want.iter().zip(&noise[name]).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        // Parameters, their gradients and the norm of those are f32, and so is what follows from an update.
        let exact = float == DType::F64 && name.starts_with("step 0 ") && !name.contains("grad");
        // What adds up to nothing does so to the precision of its terms, which are of the size of one.
        30.0 * rounding + if exact { 1e-9 * largest(want) } else { 1e-5 * largest(want).max(1.0) }
    };
    let (worst, of) = apart(found, expected, scale)?;
    if worst <= 1.0 { Ok(()) } else { Err(format!("{of} is off by {worst:.3} times what rounding may do")) }
}
