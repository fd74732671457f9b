//! Random graphs on random meshes: what the interpreter says of the graph is what all ranks of its plan give together.
//!
//! A failing case is printed as text IR, mesh and hints included.

mod coverage;
mod graph;
mod hints;
mod program;

use std::io::Write;

use ir::{Module, Precision};
use passes::Gradients;
use plan_tests::cases::{close, passes};
use plan_tests::tape::Tape;
use plan_tests::{cases, machine, reference};
use runtime_core::Options;
use target::{NoTarget, Target};
use target_ascend::{AscendTarget, SOCS};
use types::DType;

use coverage::{Classes, Histogram};

const CASES: u64 = 2000;
const STEPS: u64 = 2;

/// What became of a case that did not fail.
enum Outcome {
    Agrees(Classes),
    /// A hint of it cannot be met, or its numbers are no numbers.
    Refused,
}

#[test]
fn plans_of_random_graphs_are_what_the_graphs_say() {
    let outcomes = cases::run(CASES, compare);
    let (cases, mut refused, mut histogram) = (outcomes.len(), 0, Histogram::default());
    for outcome in outcomes {
        match outcome {
            Outcome::Agrees(classes) => histogram.add(&classes),
            Outcome::Refused => refused += 1,
        }
    }
    // Past the harness, which shows what passing tests print only if it is asked to.
    let _ = writeln!(std::io::stdout(), "{histogram}{refused} refused");
    assert!(refused * 20 < cases, "{refused} of {cases} cases were refused");
    let below = histogram.below();
    assert!(below.is_empty() || (cases as u64) < CASES, "{}", below.join("\n"));
}

fn compare(numbers: &[u32], text: &mut String) -> Result<Outcome, String> {
    let tape = &mut Tape::new(numbers);
    let mesh = hints::mesh(tape);
    let made = program::program(tape);
    let mut module = made.module;
    module.mesh = mesh;
    module.hints = hints::hints(tape, &module);
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
    let compiled = machine::compile(module, target, None, &machine::policy(gradients, numbers))?;
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

fn is_mistake(error: &str) -> bool {
    ["mistake of the compiler", "wrong module", "the gradient of"].iter().any(|sign| error.contains(sign))
}
