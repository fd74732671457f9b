//! Tests of the executor on the sample plan: right numbers in every mode, and clear refusals.

mod line;

use line::{Ramp, executor, executor_with, expected, kernel, train};
use plan::{Collect, CollectKind, Op, Reduce, ReduceKind, sample};
use runtime_core::{Argument, ExecError, Feeder, Interpreted, Options, TraceWriter};
use types::DType;

#[test]
fn steps_give_what_plain_code_gives() {
    let mut executor = executor(sample::line(), &Options::default()).expect("an executor");
    assert_eq!(train(&mut executor, 20).expect("20 steps"), expected(20));
}

#[test]
fn lanes_change_nothing() {
    for _ in 0..20 {
        let mut executor = executor(sample::two_lanes(), &Options { threads: 2, ..Options::default() }).expect("made");
        assert_eq!(train(&mut executor, 50).expect("50 steps"), expected(50));
    }
}

#[test]
fn poison_changes_nothing() {
    for plan in [sample::line(), sample::two_lanes()] {
        let mut executor = executor(plan, &Options { poison: true, ..Options::default() }).expect("an executor");
        assert_eq!(train(&mut executor, 5).expect("5 steps"), expected(5));
    }
}

#[test]
fn programs_share_parameters() {
    let mut executor = executor(sample::line(), &Options::default()).expect("an executor");
    train(&mut executor, 3).expect("3 steps");
    let w: Vec<f32> = bytemuck::cast_slice(executor.read(plan::BufferId(0)).expect("memory").expect("w")).to_vec();
    let mut feeder = Feeder::new(&executor, 1, Ramp::default(), 0, None).expect("a feeder");
    executor.run(1, &mut feeder).expect("forward");
    let out: Vec<f32> = bytemuck::cast_slice(&executor.emitted(1, plan::EmitId(0))).to_vec();
    let x = line::values(plan::FeedId(0), 0, 12);
    assert_eq!(out[0], (0..3).map(|k| x[k] * w[k]).sum::<f32>());
}

#[test]
fn a_failing_feed_is_named() {
    let mut executor = executor(sample::line(), &Options::default()).expect("an executor");
    let mut feeder = Feeder::new(&executor, 0, Ramp { fail_at: Some(2) }, 0, None).expect("a feeder");
    executor.run(0, &mut feeder).expect("step 0");
    executor.run(0, &mut feeder).expect("step 1");
    let error = executor.run(0, &mut feeder).expect_err("step 2 has no feeds").to_string();
    assert_eq!(error, "feed `x` of step 2: record `000017` has no tensor `x`");
}

#[test]
fn a_panicking_kernel_is_named_and_no_lane_waits_for_it() {
    for plan in [sample::line(), sample::two_lanes()] {
        let kernels = Interpreted::new(&plan, |k, args: &mut [Argument<'_>], scalars: &[i64]| {
            assert!(k.0 != 2, "on purpose");
            kernel(k, args, scalars);
        });
        let mut executor = executor_with(plan, kernels, &Options::default()).expect("an executor");
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let error = train(&mut executor, 1);
        std::panic::set_hook(hook);
        assert_eq!(error.expect_err("a panic").to_string(), "`grad` panicked, at line.mm:3:9 (line)");
    }
}

#[test]
fn what_cannot_run_is_refused() {
    let mut collective = sample::line();
    let body = &mut collective.programs[0].bodies[0];
    body.lanes.push(plan::LaneKind::Comm(0));
    body.instructions[3].lane = plan::LaneId::new(body.lanes.len() - 1);
    collective.programs[0].bodies[0].instructions[3].op = Op::Collect(Box::new(Collect {
        id: 4,
        kind: CollectKind::AllReduce(Reduce { kind: ReduceKind::Sum, dtype: DType::F32 }),
        group: vec!["dp".into()],
        from: vec![],
        to: vec![],
        why: "".into(),
    }));
    let error = executor(collective, &Options::default()).map(|_| ()).expect_err("a collective").to_string();
    assert_eq!(
        error,
        "program `train` has a collective, #3 c4 all_reduce sum f32 over dp( -> ) at line.mm:1:9 (line), and there are no \
         ranks to run it with"
    );

    let mut huge = sample::line();
    huge.programs[0].bodies[0].arena_bytes = 1 << 49;
    assert!(matches!(executor(huge, &Options::default()), Err(ExecError::Memory { .. })));
}

#[test]
fn the_trace_has_a_track_for_each_lane() {
    let options = Options { trace: true, ..Options::default() };
    let mut executor = executor(sample::two_lanes(), &options).expect("an executor");
    let mut feeder = Feeder::new(&executor, 0, Ramp::default(), 0, Some(2)).expect("a feeder");
    let mut bytes = Vec::new();
    let mut writer = TraceWriter::new(&mut bytes, executor.plan(), 0..1, 1000).expect("a trace");
    for step in 0..2 {
        executor.run(0, &mut feeder).expect("a step");
        assert!(writer.add(&executor, 0, step).expect("added"));
    }
    assert!(!writer.finish().expect("closed"));
    let events: Vec<serde_json::Value> = serde_json::from_slice(&bytes).expect("JSON");
    let names: Vec<_> = events.iter().map(|e| format!("{} {}", e["tid"], e["name"]).replace('"', "")).collect();
    insta::assert_snapshot!(names.join("\n"));
    assert_eq!(events[4]["args"]["place"], "line.mm:2:9 (line)");
}
