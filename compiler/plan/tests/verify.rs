//! Tests of the verifier: the sample plan passes, each kind of fault is found and named, and big plans are no trouble.

use plan::{
    Affine, BufferId, ClassId, EventId, Instruction, LaneId, Life, Op, Origin, PlaceId, Plan, Rule, Slice, flops,
    memory, memory_by_kind, sample, traffic, verify,
};

/// The violations of `plan` after `change`, one a line.
fn broken(mut plan: Plan, change: impl FnOnce(&mut Plan)) -> (Vec<Rule>, String) {
    change(&mut plan);
    let violations = verify(&plan).expect_err("a violation");
    let lines: Vec<_> = violations.iter().map(|v| format!("{:?}: {v}", v.rule)).collect();
    (violations.iter().map(|v| v.rule).collect(), lines.join("\n"))
}

fn train(plan: &mut Plan) -> &mut plan::Body {
    &mut plan.programs[0].bodies[0]
}

fn train_of(plan: &Plan) -> plan::Scope<'_> {
    plan.scope(0, ClassId::new(0)).expect("a program")
}

#[test]
fn the_samples_are_right() {
    assert_eq!(verify(&sample::line()), Ok(()));
    assert_eq!(verify(&sample::two_lanes()), Ok(()));
    assert_eq!(verify(&sample::grid()), Ok(()));
    assert_eq!(verify(&sample::several()), Ok(()));
}

#[test]
fn drawing_of_several_programs() {
    insta::assert_snapshot!(sample::several());
}

#[test]
fn drawing() {
    insta::assert_snapshot!(sample::two_lanes());
}

#[test]
fn drawing_of_several_ranks() {
    insta::assert_snapshot!(sample::grid());
}

#[test]
fn memory_is_summed_from_buffers() {
    let plan = sample::two_lanes();
    insta::assert_debug_snapshot!(memory(train_of(&plan)));
}

#[test]
fn figures_of_several_ranks() {
    let plan = sample::grid();
    let (scope, body) = (train_of(&plan), &plan.programs[0].bodies[0]);
    let mut text = format!("flops {}\n", flops(&plan, body));
    for k in memory_by_kind(scope) {
        text += &format!("{} {} persistent, {} at most\n", k.kind, k.persistent, k.peak);
    }
    for t in traffic(&plan, body) {
        text +=
            &format!("{} over {} ({} ranks): {} times, {} B\n", t.kind, t.group.join(" "), t.ranks, t.count, t.bytes);
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_missing_wait_is_a_race() {
    let (rules, text) = broken(sample::two_lanes(), |p| {
        train(p).instructions[3].op = Op::Record { event: EventId(0) };
        train(p).instructions[2].op = Op::Wait { event: EventId(0) };
        train(p).instructions.swap(2, 3);
    });
    assert!(rules.contains(&Rule::Race));
    insta::assert_snapshot!(text);
}

#[test]
fn a_wait_before_its_record_would_hang() {
    let (rules, text) = broken(sample::two_lanes(), |p| train(p).instructions.swap(2, 3));
    assert!(rules.contains(&Rule::Event));
    insta::assert_snapshot!(text);
}

#[test]
fn buffers_that_live_at_once_stay_apart() {
    let (rules, text) = broken(sample::line(), |p| train(p).buffers[4].offset = 336);
    assert!(rules.contains(&Rule::Life));
    insta::assert_snapshot!(text);
}

#[test]
fn a_use_after_the_end_of_a_life_is_found() {
    let (rules, text) = broken(sample::line(), |p| train(p).buffers[0].life = Life::Span { first: 0, last: 4 });
    assert_eq!(rules, [Rule::Life]);
    insta::assert_snapshot!(text);
}

#[test]
fn a_read_needs_a_write() {
    let (rules, text) = broken(sample::line(), |p| {
        train(p).instructions.remove(1);
        for buffer in &mut train(p).buffers {
            if let Life::Span { first, last } = &mut buffer.life {
                (*first, *last) = (first.saturating_sub(1), last.saturating_sub(1));
            }
        }
    });
    assert_eq!(rules, [Rule::Unwritten]);
    insta::assert_snapshot!(text);
}

/// `loss` writes `dp` over `p`, its first argument.
#[test]
fn only_kernels_that_say_so_work_in_place() {
    let over = |p: &mut Plan| {
        let body = train(p);
        for (index, argument) in [(5, 3), (7, 0)] {
            let Op::Launch(launch) = &mut body.instructions[index].op else { continue };
            launch.args[argument].buffer = BufferId(5);
        }
        body.buffers[2].life = Life::Span { first: 4, last: 7 };
        body.buffers[5].offset = body.buffers[4].offset;
        (body.buffers[4].bytes, body.buffers[4].ty) = (0, None);
    };
    let (rules, text) = broken(sample::line(), over);
    assert_eq!(rules, [Rule::Race]);
    insta::assert_snapshot!(text);
    let mut plan = sample::line();
    over(&mut plan);
    plan.kernels[1].in_place = vec![(0, 3)];
    assert_eq!(verify(&plan), Ok(()));
    // The very same slice, or not at all.
    let Op::Launch(launch) = &mut train(&mut plan).instructions[5].op else { return };
    (launch.args[3].offset, launch.args[3].bytes) = (4, 28);
    assert!(verify(&plan).is_err());
}

#[test]
fn structure_is_checked_first() {
    type Change<'a> = &'a dyn Fn(&mut Plan);
    let cases: [(&str, Change<'_>); 12] = [
        ("lane", &|p| train(p).instructions[0].lane = LaneId(9)),
        ("place", &|p| train(p).instructions[0].place = PlaceId(99)),
        ("event", &|p| train(p).instructions[2].op = Op::Record { event: EventId(5) }),
        ("slice", &|p| train(p).instructions[0].op = Op::Copy { from: slice(3, 8, u64::MAX), to: slice(3, 0, 8) }),
        ("copy", &|p| train(p).instructions[0].op = Op::Copy { from: slice(3, 0, 4), to: slice(4, 0, 8) }),
        ("arity", &|p| {
            let Op::Launch(launch) = &mut train(p).instructions[4].op else { return };
            launch.scalars.push(Affine::from(1));
        }),
        ("arena", &|p| train(p).arena_bytes = 400),
        ("type", &|p| train(p).buffers[0].bytes = 4),
        ("feed", &|p| p.programs[0].feeds[0].ty.dims[0].size = 5),
        ("mesh", &|p| p.header.mesh.axes[0].size = 0),
        ("classes", &|p| p.header.mesh.axes[0].size = usize::MAX),
        ("names", &|p| p.manifest.parameters[0].aliases.push("w".into())),
    ];
    let mut text = String::new();
    for (case, change) in cases {
        let (rules, lines) = broken(sample::line(), change);
        assert!(rules.iter().all(|r| *r == Rule::Structure), "{case}: {lines}");
        text.push_str(&format!("{case}\n  {}\n", lines.replace('\n', "\n  ")));
    }
    insta::assert_snapshot!(text);
}

fn slice(buffer: u32, offset: u64, bytes: u64) -> Slice {
    Slice { buffer: BufferId(buffer), offset, bytes }
}

/// A chain of 50,000 launches over reused memory, on two lanes.
#[test]
fn fifty_thousand_instructions() {
    let mut plan = sample::two_lanes();
    let body = train(&mut plan);
    let template = body.buffers[2].clone();
    let (first, own) = (body.instructions.len(), 3 + body.buffers.len());
    let count = 50_000;
    for i in 0..count {
        let mut buffer = template.clone();
        buffer.name = format!("t{i}").into();
        buffer.offset = 512 + (i % 7) * 64;
        let at = first as u64 + i;
        buffer.life = Life::Span { first: at as u32, last: (at + 2).min(first as u64 + count - 1) as u32 };
        let bytes = buffer.bytes;
        body.buffers.push(buffer);
        let me = BufferId::new(own + i as usize);
        let source = if i == 0 { BufferId(7) } else { BufferId(me.0 - 1) };
        let op = Op::Copy { from: Slice::whole(source, bytes), to: Slice::whole(me, bytes) };
        body.instructions.push(Instruction { lane: LaneId(0), place: PlaceId(0), origin: Origin::default(), op });
    }
    body.buffers[4].life = Life::Span { first: 5, last: first as u32 };
    body.arena_bytes = 2048;
    verify(&plan).expect("right");
}
