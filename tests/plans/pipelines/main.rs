//! Random pipelines on random meshes: every rank is held up at random, and all of them together give what the interpreter
//! says of the graph; none waits for ever.
//!
//! A failing case is printed as text IR, with its mesh, schedule and passes.

mod model;

use std::collections::BTreeMap;
use std::io::Write;

use diag::PlaceId;
use ir::{Precision, ShardingHint, Stored};
use passes::{Gradients, Grid, SCHEDULES, Stages};
use plan_tests::cases::{close, passes};
use plan_tests::tape::Tape;
use plan_tests::{cases, machine, reference};
use runtime_core::Options;
use target::NoTarget;
use types::{DType, Mesh, Name};

const CASES: u64 = 1000;
const STEPS: u64 = 2;

/// What a case was made of.
type Classes = Vec<&'static str>;

/// Classes that cases must have, and how many of a hundred at least; each schedule is one as well.
const FLOORS: [(&str, usize); 13] = [
    ("pp 2", 25),
    ("pp 3", 5),
    ("pp 4", 10),
    ("dp", 5),
    ("zero 1", 2),
    ("fsdp", 5),
    ("hoisted", 3),
    ("cp", 5),
    ("tp", 5),
    ("tied", 25),
    ("recompute", 20),
    ("clip", 25),
    ("one micro-batch", 5),
];

#[test]
fn pipelines_that_are_held_up_give_what_the_graphs_say() {
    let outcomes = cases::run(CASES, compare);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    outcomes.iter().flatten().for_each(|class| *counts.entry(class).or_default() += 1);
    let share = |class: &str| counts.get(class).copied().unwrap_or(0) * 100 / outcomes.len();
    // Past the harness, which shows what passing tests print only if it is asked to.
    let _ = writeln!(std::io::stdout(), "{} pipelines: {counts:?}", outcomes.len());
    let floors = FLOORS.into_iter().chain(SCHEDULES.iter().map(|schedule| (schedule.name, 10)));
    for (class, least) in floors.filter(|_| outcomes.len() as u64 >= CASES) {
        assert!(share(class) >= least, "{class}: {} of a hundred cases, not {least}", share(class));
    }
}

/// What a case was made of, if all ranks together agree with the interpreter.
fn compare(numbers: &[u32], text: &mut String) -> Result<Classes, String> {
    let tape = &mut Tape::new(numbers);
    let mut classes = Classes::new();
    let schedule = &SCHEDULES[tape.below(SCHEDULES.len())];
    classes.push(schedule.name);
    let ranks = tape.pick(&[2, 4, 2, 3]);
    classes.push(["pp 2", "pp 3", "pp 4"][ranks - 2]);
    let chunks = *schedule.rules.chunks.start();
    let stages = Stages { ranks, chunks, schedule, at: None };
    let mut microbatches = 1 + tape.below(8);
    if schedule.check(&Grid { ranks, chunks, microbatches }).is_err() {
        microbatches = microbatches.next_multiple_of(ranks);
    }
    classes.extend((microbatches == 1).then_some("one micro-batch"));
    let (mesh, replicas) = mesh(tape, ranks, &mut classes);
    let blocks = ranks * chunks + tape.below(3);
    let samples = replicas * (1 + tape.below(2));
    let made = model::text(tape, blocks, samples, &mut classes);
    let mut module = ir::parse(&made).map_err(|e| format!("{}\n{made}", e.message))?;
    module.hints = hints(tape, &mesh, &mut classes);
    module.mesh = mesh;

    let optimizer = match tape.below(3) {
        0 => "optimizer{kind=sgd,lr=0.1,clip=0.5}",
        1 => "optimizer{lr=0.05,eps=0.01,clip=0.5}",
        _ => "optimizer{lr=0.05,eps=0.01,clip=0}",
    };
    classes.extend(optimizer.contains("clip=0.5").then_some("clip"));
    let global = format!("precision | autodiff | inline | microbatches{{count={microbatches}}} | {optimizer} | inline");
    let in_parts = ["fsdp", "zero 1"].iter().any(|class| classes.contains(class));
    let hoisted = in_parts && microbatches > 1 && tape.one_in(2);
    classes.extend(hoisted.then_some("hoisted"));
    let local = format!("simplify | shard | partition | simplify{}", if hoisted { " | hoist-collectives" } else { "" });
    *text = format!("{module}{stages:?}\npasses: {global} | {local} | group{{stages=true}}\n");

    passes(&global, &mut module, |_, _| {})?;
    let noise = reference::interpret(&module, Precision::Exact, STEPS)?;
    let expected = reference::interpret(&module, Precision::Declared, STEPS)?;
    passes(&local, &mut module, |_, _| {})?;
    let gradients = tape.pick(&[Gradients::Streamed, Gradients::Resident]);
    let compiled = machine::compile(module, &NoTarget, Some(&stages), &machine::policy(gradients, numbers))?;
    let plan = machine::verified(compiled.plan)?;
    let kernels = machine::interpreting(plan.plan(), compiled.functions);
    let options = Options { jitter: Some(tape.below(1000) as u64), poison: tape.one_in(3), ..Options::default() };
    let found = machine::run(&plan, kernels, &options, STEPS)?;
    close(&found, &expected, &noise, DType::F32)?;
    Ok(classes)
}

/// A mesh of up to eight ranks, and how many replicas there are in it.
fn mesh(tape: &mut Tape<'_>, ranks: usize, classes: &mut Classes) -> (Mesh, usize) {
    const AXES: [&str; 4] = ["dp", "fsdp", "cp", "tp"];
    let mut sizes = [1; AXES.len()];
    let mut rest = 8 / ranks;
    while rest > 1 {
        let Some(size) = sizes.get_mut(tape.below(AXES.len() + 1)) else { break };
        *size *= 2;
        rest /= 2;
    }
    let used = AXES.into_iter().zip(sizes).filter(|(_, size)| *size > 1);
    classes.extend(used.map(|(name, _)| name));
    let axes = [("pp", ranks), ("dp", sizes[0]), ("fsdp", sizes[1]), ("cp.ring", sizes[2]), ("tp", sizes[3])];
    (Mesh::new(axes).expect("axes have names of their own"), sizes[0] * sizes[1])
}

/// Samples over replicas, tokens over cp and, between blocks, tp, wide dims over tp, parameters stored over fsdp.
fn hints(tape: &mut Tape<'_>, mesh: &Mesh, classes: &mut Classes) -> Vec<(ShardingHint, PlaceId)> {
    let names = |axes: &[&str]| axes.iter().map(|a| Name::new(a)).collect::<Vec<_>>();
    let shard = |dim: &str, axes: &[&str]| ShardingHint::Shard { dim: dim.into(), axes: names(axes), exact: false };
    let mut hints = vec![shard("B", &["dp", "fsdp"]), shard("L", &["cp.ring"]), shard("F", &["tp"])];
    if tape.one_in(2) {
        hints.push(shard("V", &["tp"]));
    }
    if tape.one_in(2) {
        hints.push(ShardingHint::SequenceParallel { dim: "L".into(), of: "B".into(), axes: names(&["tp"]) });
    }
    hints.push(ShardingHint::Store { what: Stored::Parameters, axes: names(&["fsdp"]) });
    if mesh.size("dp") > 1 && tape.one_in(2) {
        hints.push(ShardingHint::Store { what: Stored::Optimizer, axes: names(&["dp"]) });
        classes.push("zero 1");
    }
    hints.into_iter().map(|hint| (hint, PlaceId::NONE)).collect()
}
