//! Plans that the compiler made, each with one fault: the verifier refuses it and names the instruction, or all ranks give
//! the same bits as without it, whatever holds them up.

use std::collections::BTreeMap;

use passes::{Context, MemoryPolicy, Pipeline};
use plan::{Plan, Verified, sample, verify};
use plan_tests::{Values, machine, models};
use runtime_core::Options;
use target::NoTarget;

const STEPS: u64 = 2;
/// Ways in which lanes and ranks are held up.
const INTERLEAVINGS: u64 = 100;
/// Faults of each kind in each plan.
const SEEDS: u32 = 12;

const TRAIN: &str =
    "precision | autodiff | optimizer{lr=0.05,clip=0.5} | inline | simplify | shard | partition | simplify";

/// A model on a mesh.
const CASES: [(&str, &str, &str, &[&str]); 4] = [
    ("tp", models::BLOCKS, "mesh [tp:2]", &[r#"{"shard":{"dim":"F","axes":["tp"]}}"#]),
    (
        "fsdp",
        models::BLOCKS,
        "mesh [fsdp:3]",
        &[r#"{"shard":{"dim":"B","axes":["fsdp"]}}"#, r#"{"store":{"what":"parameters","axes":["fsdp"]}}"#],
    ),
    ("cp ring", models::ATTENTION, "mesh [cp.ring:3]", &[r#"{"shard":{"dim":"L","axes":["cp.ring"]}}"#]),
    (
        "mixed",
        models::ATTENTION,
        "mesh [fsdp:2, cp.ulysses:2, tp:2]",
        &[
            r#"{"shard":{"dim":"B","axes":["fsdp"]}}"#,
            r#"{"shard":{"dim":"L","axes":["cp.ulysses"]}}"#,
            r#"{"shard":{"dim":"H","axes":["tp"]}}"#,
            r#"{"sequence_parallel":{"dim":"L","of":"B","axes":["tp"]}}"#,
            r#"{"exchange":{"axes":["cp.ulysses"]}}"#,
            r#"{"store":{"what":"parameters","axes":["fsdp"]}}"#,
        ],
    ),
];

/// How often each kind of fault was refused, and how often it made no difference.
type Counts = BTreeMap<String, (usize, usize)>;

#[test]
fn faults_are_refused_or_change_nothing() {
    let mut text = String::new();
    for (name, model, mesh, hints) in CASES {
        let mut counts = Counts::new();
        check(model, mesh, hints, &mut counts);
        text += &format!("{name}\n");
        for (kind, (refused, same)) in &counts {
            text += &format!("  {kind}: {refused} refused, {same} the same\n");
        }
        let refused: usize = counts.values().map(|(refused, _)| refused).sum();
        assert!(refused > 50, "{name}: only {refused} faults were refused");
    }
    println!("{text}");
}

fn check(model: &str, mesh: &str, hints: &[&str], counts: &mut Counts) {
    let hints: String = hints.iter().map(|w| format!("hint {w}\n")).collect();
    let mut lines = model.trim_start().splitn(2, '\n');
    let text = format!("{}\n{mesh}\n{hints}{}", lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let mut module = ir::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let passes = Pipeline::parse(TRAIN).expect("a pipeline");
    passes.run(&mut module, &mut Context::default(), |_, _| {}).unwrap_or_else(|e| panic!("{e}"));
    let compiled = machine::compile(module, &NoTarget, None, &MemoryPolicy::default()).expect("compiles");
    let run = |plan: Plan, jitter: Option<u64>| -> Result<Values, String> {
        let plan = Verified::new(plan).map_err(|v| v[0].to_string())?;
        let kernels = machine::interpreting(plan.plan(), compiled.functions.clone());
        machine::run(&plan, kernels, &Options { jitter, ..Options::default() }, STEPS)
    };
    // Each rank by itself, so that a fault is one rank's.
    let axes: Vec<_> = compiled.plan.header.mesh.axes.iter().filter(|a| a.size > 1).map(|a| a.name.clone()).collect();
    let base = axes.iter().fold(compiled.plan.clone(), |plan, axis| sample::split(&plan, axis));
    let expected = run(base.clone(), None).unwrap_or_else(|e| panic!("{e}"));
    for jitter in 0..INTERLEAVINGS {
        // Classes of one rank each are the same plan.
        let plan = if jitter % 2 == 0 { base.clone() } else { compiled.plan.clone() };
        assert!(run(plan, Some(jitter)).as_ref() == Ok(&expected), "held up by {jitter}, the plan gives other bits");
    }
    for seed in 0..SEEDS {
        for (fault, plan) in sample::mutations(&base, seed) {
            let kind = fault.split(':').next().unwrap_or_default().to_owned();
            let count = counts.entry(kind).or_default();
            match verify(&plan) {
                Err(violations) => {
                    // The instruction, or the two buffers that would share memory.
                    let named = violations.iter().any(|v| v.message.contains('#') || v.message.contains('`'));
                    assert!(named, "{fault}: {violations:?}");
                    count.0 += 1;
                }
                Ok(()) => {
                    for jitter in 0..INTERLEAVINGS {
                        let found = run(plan.clone(), Some(jitter));
                        assert!(
                            found.as_ref() == Ok(&expected),
                            "accepted, and not the same: {fault} ({:?})",
                            found.err()
                        );
                    }
                    count.1 += 1;
                }
            }
        }
    }
}
