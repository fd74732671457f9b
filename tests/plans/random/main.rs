//! Random graphs on random meshes: what the interpreter says of the graph is what all ranks of its plan give together.
//!
//! `PLAN_CASES=100000` runs more cases than usual, `PLAN_SEED=17` begins with another; a failing case is made simpler
//! and printed as text IR, mesh and wishes included.

mod coverage;
mod graph;
mod program;
mod tape;
mod wishes;

use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use ir::{Module, Precision};
use passes::{Context, Gradients, Pipeline};
use plan_tests::{Values, apart, largest, machine, reference};
use runtime_core::Options;
use target::{NoTarget, Target};
use target_ascend::{AscendTarget, SOCS};
use types::DType;

use coverage::{Classes, Histogram};
use tape::Tape;

const CASES: u64 = 2000;
const STEPS: u64 = 2;

/// What became of a case that did not fail.
enum Outcome {
    Agrees(Classes),
    /// A wish of it cannot be met, or its numbers are no numbers.
    Refused,
}

/// Of all cases.
#[derive(Default)]
struct Found {
    histogram: Histogram,
    refused: u64,
    /// By seed, with the reason.
    failed: BTreeMap<u64, String>,
}

/// A case that failed, as text, and why.
struct Failure {
    case: String,
    reason: String,
}

#[test]
fn plans_of_random_graphs_are_what_the_graphs_say() {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let (cases, first) = (number("PLAN_CASES", CASES), number("PLAN_SEED", 0));
    let (next, all) = (AtomicU64::new(first), Mutex::new(Found::default()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + cases {
                        return;
                    }
                    let outcome = quietly(|| case(&tape::of_seed(seed)));
                    let mut all = all.lock().expect("the histogram");
                    match outcome {
                        Ok(Outcome::Agrees(classes)) => all.histogram.add(&classes),
                        Ok(Outcome::Refused) => all.refused += 1,
                        Err(failure) => drop(all.failed.insert(seed, failure.reason)),
                    }
                }
            });
        }
    });
    let Found { histogram, refused, failed } = all.into_inner().expect("the histogram");
    // Past the harness, which shows what passing tests print only if it is asked to.
    let _ = writeln!(std::io::stdout(), "{histogram}{refused} refused");
    if let Some(seed) = failed.keys().next() {
        for (seed, reason) in failed.iter().take(30) {
            println!("seed {seed}: {}", reason.lines().next().unwrap_or_default());
        }
        let simple = quietly(|| tape::shrink(&tape::of_seed(*seed), |numbers| case(numbers).is_err()));
        let failure = quietly(|| case(&simple)).err();
        let Failure { case, reason } = failure.unwrap_or_else(|| Failure { case: String::new(), reason: "?".into() });
        panic!("seed {seed} (PLAN_SEED={seed} PLAN_CASES=1) and {} more:\n{case}\n{reason}", failed.len() - 1);
    }
    assert!(refused * 20 < cases, "{refused} of {cases} cases were refused");
    let below = histogram.below();
    assert!(below.is_empty() || cases < CASES, "{}", below.join("\n"));
}

/// Runs without a message for each panic: they are results here.
fn quietly<T>(run: impl FnOnce() -> T) -> T {
    static ONCE: std::sync::Once = std::sync::Once::new();
    thread_local! { static QUIET: std::cell::Cell<bool> = const { std::cell::Cell::new(false) } }
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

fn case(numbers: &[u32]) -> Result<Outcome, Failure> {
    let mut text = String::new();
    let result = catch_unwind(AssertUnwindSafe(|| compare(numbers, &mut text)));
    let result = result.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        Err(format!("panicked: {}", said.or(panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()))
    });
    result.map_err(|reason| Failure { case: text, reason })
}

fn compare(numbers: &[u32], text: &mut String) -> Result<Outcome, String> {
    let tape = &mut Tape::new(numbers);
    let mesh = wishes::mesh(tape);
    let made = program::program(tape);
    let mut module = made.module;
    module.mesh = mesh;
    module.wishes = wishes::wishes(tape, &module);
    // In text, all parameters of a function come first.
    let mut module = ir::parse(&module.to_string()).map_err(|e| e.message)?;
    *text = module.to_string();
    if ir::parse(text).map_err(|e| e.message)?.to_string() != *text {
        return Err("the text does not read back".into());
    }
    let mut classes = Classes::new();
    let mut pipeline: Vec<&str> = vec!["precision"];
    if made.trains {
        pipeline.push("autodiff");
        classes.insert("gradients".into());
        let optimizer = match tape.below(6) {
            0 | 1 => "optimizer{kind=sgd,lr=0.1,clip=0.5}",
            2 => "optimizer{lr=0.05,eps=0.01,clip=0.5}",
            3 => "optimizer{lr=0.05,eps=0.01,clip=0}",
            _ => "",
        };
        if !optimizer.is_empty() {
            classes.insert("optimizer".into());
            pipeline.push(optimizer);
        }
    }
    if !tape.one_in(3) {
        pipeline.push("inline");
    }
    if tape.one_in(2) {
        pipeline.push("simplify");
    }
    let global = pipeline.join(" | ");
    let local = if tape.one_in(3) { "shard | partition" } else { "shard | partition | simplify" };
    text.push_str(&format!("passes: {global} | {local}\n"));

    if let Err(e) = passes(&global, &mut module, |_, _| {}) {
        // A parameter that no loss depends on has no gradient.
        return if is_mistake(&e) { Err(e) } else { Ok(Outcome::Refused) };
    }
    let noise = reference::interpret(&module, Precision::Exact, STEPS)?;
    let expected = reference::interpret(&module, Precision::Declared, STEPS)?;
    if expected.values().flatten().any(|v| !v.is_finite() || v.abs() > 1e8) {
        return Ok(Outcome::Refused);
    }
    let sharded = |name: &str, module: &Module| {
        if name == "shard" {
            coverage::of_sharded(module, &mut classes);
        }
    };
    if let Err(e) = passes(local, &mut module, sharded) {
        return if is_mistake(&e) { Err(e) } else { Ok(Outcome::Refused) };
    }
    let gradients = tape.pick(&[Gradients::Streamed, Gradients::Resident]);
    // Half of what Ascend can hold falls into its segments, and into operators of their own otherwise.
    let segments = made.float != DType::F64 && numbers.iter().fold(0, |sum, n| sum ^ n) % 2 == 0;
    let target: &dyn Target = if segments { &AscendTarget { soc: &SOCS[0] } } else { &NoTarget };
    classes.extend(segments.then(|| "segments".into()));
    let compiled = machine::compile(module, target, gradients)?;
    coverage::of_plan(&compiled.plan, &mut classes);
    let plan = machine::verified(compiled.plan)?;
    let kernels = machine::interpreting(plan.plan(), compiled.functions);
    let mut options = Options::default();
    match tape.below(3) {
        0 => options.jitter = Some(tape.below(1000) as u64),
        1 => options.poison = true,
        _ => {}
    }
    classes.extend(options.jitter.map(|_| "held up".into()));
    classes.extend(options.poison.then(|| "poisoned".into()));
    let found = machine::run(&plan, kernels, &options, STEPS)?;
    close(&found, &expected, &noise, made.float)?;
    Ok(Outcome::Agrees(classes))
}

fn passes(text: &str, module: &mut Module, after: impl FnMut(&str, &Module)) -> Result<(), String> {
    let pipeline = Pipeline::parse(text).map_err(|e| e.to_string())?;
    let mut cx = Context::default();
    pipeline.run(module, &mut cx, after).map_err(|e| {
        let notes = e.0.iter().flat_map(|d| &d.notes).map(ToString::to_string).collect::<Vec<_>>();
        format!("{e} {}", notes.join(" "))
    })
}

fn is_mistake(error: &str) -> bool {
    ["mistake of the compiler", "wrong module", "the gradient of"].iter().any(|sign| error.contains(sign))
}

/// Sums are taken in another order on a mesh, which matters as much as rounding does: `noise` is without any.
fn close(found: &Values, expected: &Values, noise: &Values, float: DType) -> Result<(), String> {
    let scale = |name: &str, want: &[f64]| {
        let rounding = want.iter().zip(&noise[name]).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        // Parameters and their gradients are f32, and so is what follows from an update.
        let exact = float == DType::F64 && name.starts_with("step 0 ") && !name.contains("grad/");
        // What adds up to nothing does so to the precision of its terms, which are of the size of one.
        30.0 * rounding + if exact { 1e-9 * largest(want) } else { 1e-5 * largest(want).max(1.0) }
    };
    let (worst, of) = apart(found, expected, scale)?;
    if worst <= 1.0 { Ok(()) } else { Err(format!("{of} is off by {worst:.3} times what rounding may do")) }
}
