//! Tests of several programs over one arena: feeds and emits of their own, residencies and prepared values.

use plan::{
    BufferId, BufferKind, ClassId, EmitId, FeedId, Life, Op, ParameterId, Plan, ResidencyId, Rule, Slice, StateInit,
    memory, sample, verify,
};
use types::Runs;

fn check(rule: Rule, expect: &str, change: impl FnOnce(&mut Plan)) {
    let mut plan = sample::several();
    change(&mut plan);
    let violations = verify(&plan).expect_err(expect);
    let found = violations.iter().any(|v| v.rule == rule && v.message.contains(expect));
    assert!(found, "{expect}: {violations:?}");
}

fn first_launch(plan: &mut Plan, program: usize) -> &mut plan::Launch {
    let ops = plan.programs[program].bodies[0].instructions.iter_mut().map(|i| &mut i.op);
    ops.into_iter().find_map(|op| if let Op::Launch(launch) = op { Some(launch) } else { None }).expect("a launch")
}

#[test]
fn feeds_and_emits_are_those_of_the_program() {
    let plan = sample::several();
    let feeds: Vec<_> = plan.programs.iter().flat_map(|p| &p.feeds).map(|f| f.ty.to_string()).collect();
    assert_eq!(feeds, ["f32[B:4, IN:3]", "f32[B:2, IN:9]"]);
    check(Rule::Structure, "gives 48 bytes to `x`, whose type is f32[B:4, IN:9]", |p| {
        p.programs[1].feeds[0].ty = "f32[B:4, IN:9]".parse().expect("a type");
    });
    let of_others = |op: &mut Op| match op {
        Op::Feed { feed, .. } => *feed = FeedId(1),
        Op::Emit { emit, .. } => *emit = EmitId(1),
        _ => {}
    };
    check(Rule::Structure, "takes feed1, which does not exist", |p| {
        p.programs[2].bodies[0].instructions.iter_mut().for_each(|i| of_others(&mut i.op));
    });
    check(Rule::Structure, "gives emit1, which does not exist", |p| {
        p.programs[2].bodies[0].instructions.iter_mut().for_each(|i| of_others(&mut i.op));
    });
    check(Rule::Structure, "low: two feeds are called `x`", |p| {
        let again = p.programs[2].feeds[0].clone();
        p.programs[2].feeds.push(again);
    });
}

#[test]
fn no_program_touches_the_parameters_of_another_residency() {
    check(Rule::Structure, "touches `low`, which is of a residency that the program does not need", |p| {
        first_launch(p, 1).args[1] = Slice { buffer: BufferId(3), offset: 0, bytes: 24 };
    });
    check(Rule::Structure, "touches `high`, which is of a residency", |p| p.programs[1].residency = None);
    check(Rule::Structure, "needs residency7, which does not exist", |p| {
        p.programs[1].residency = Some(ResidencyId(7));
    });
    check(Rule::Structure, "`high` is in residency2", |p| {
        p.classes[0].persistent[2].life = Life::Resident(ResidencyId(2));
    });
    check(Rule::Structure, "`high` is in a residency, and no parameter on the device", |p| {
        p.classes[0].persistent[2].kind = BufferKind::Optimizer;
    });
    // A buffer of a program in the bytes that residencies share.
    check(Rule::Structure, "`x` lies among the persistent buffers", |p| {
        p.programs[1].bodies[0].buffers[0].offset = 160;
    });
    // Within one residency, and beside what always lives, nothing is shared.
    check(Rule::Life, "residency low, all: `twice w` and `low` live at the same time", |p| {
        p.classes[0].persistent[3].offset = 64;
    });
    check(Rule::Life, "residency low, all: `high` and `low` live at the same time", |p| {
        p.classes[0].persistent[2].life = Life::Resident(ResidencyId(1));
        p.programs[1].residency = Some(ResidencyId(1));
    });
}

#[test]
fn what_belongs_to_a_parameter_names_one() {
    let of_none = "is of no parameter that it can follow";
    check(Rule::Structure, &format!("state `twice w` {of_none}"), |p| {
        p.manifest.states[0].of = Some(ParameterId(3));
    });
    check(Rule::Structure, &format!("state `twice w` {of_none}"), |p| {
        p.manifest.states[0].init = StateInit::Parameter;
    });
    // Of another shape.
    check(Rule::Structure, &format!("state `twice w` {of_none}"), |p| {
        (p.manifest.states[0].init, p.manifest.states[0].of) = (StateInit::Parameter, Some(ParameterId(2)));
    });
    check(Rule::Structure, "is the gradient of no parameter", |p| {
        p.programs[1].emits[0].of = Some(ParameterId(3));
    });
}

#[test]
fn memory_is_what_always_lies_there_and_one_residency() {
    let plan = sample::several();
    let of = |program| memory(plan.scope(program, ClassId::new(0)).expect("a program"));
    let params: Vec<u64> = (0..3).map(|p| of(p).params_bytes).collect();
    assert_eq!(params, [48, 72, 120]);
    assert_eq!(of(1).sleeping_bytes, 24 + 72);
    assert_eq!(of(1).arena_bytes, of(2).arena_bytes);
}

#[test]
fn prepared_values_follow_from_parameters() {
    check(Rule::Prepared, "no program prepares all of `twice w`", |p| _ = p.programs.remove(0));
    check(Rule::Prepared, "no program prepares all of `twice w`", |p| {
        for slice in &mut first_launch(p, 0).args {
            slice.bytes = 20;
        }
    });
    check(Rule::Prepared, "writes a prepared value, and its program does not prepare: `twice w`", |p| {
        p.programs[0].runs = Runs::Asked;
    });
    check(Rule::Prepared, "writes what is no prepared value: `w`", |p| first_launch(p, 0).args.swap(0, 1));
    check(Rule::Prepared, "reads what does not follow from parameters: `w`", |p| {
        p.manifest.parameters.remove(0);
    });
    check(Rule::Prepared, "reads a prepared value before any program has made it: `w`", |p| {
        let w = p.manifest.parameters.remove(0);
        p.manifest.states.push(plan::State {
            name: w.name,
            of: None,
            ty: w.ty,
            layout: w.layout,
            init: StateInit::Prepared,
            buffers: w.buffers,
        });
    });
    check(Rule::Structure, "prepares values, and takes feeds or gives emits", |p| {
        p.programs[1].runs = Runs::Prepare;
    });
    check(Rule::Prepared, "writes a prepared value that another program has made", |p| {
        let mut again = p.programs[0].clone();
        again.name = "again".into();
        p.programs.insert(1, again);
    });
}
