//! The proof that nothing hangs, against its definition on all ranks, on samples, their mutations and random meshes.

use plan::{
    Affine, Collect, CollectKind, EventId, Instruction, LaneId, LaneKind, Op, Origin, PlaceId, Plan, Ranks, Reduce,
    ReduceKind, Rule, Slice, Term, hangs_of_all_ranks, sample, verify,
};
use types::{DType, Mesh, Name, philox4x32_10};

/// Whether the verifier found a hang, and what it said.
fn hangs(plan: &Plan) -> Option<String> {
    let violations = verify(plan).err()?;
    violations.iter().find(|v| matches!(v.rule, Rule::Rendezvous | Rule::Hang)).map(ToString::to_string)
}

#[test]
fn samples_agree_with_all_their_ranks() {
    let grid = sample::grid();
    for plan in [
        sample::line(),
        sample::two_lanes(),
        grid.clone(),
        sample::split(&grid, &"tp".into()),
        sample::split(&grid, &"fsdp".into()),
        sample::split(&sample::split(&grid, &"tp".into()), &"fsdp".into()),
    ] {
        assert_eq!(verify(&plan), Ok(()));
        assert_eq!(hangs_of_all_ranks(&plan), None);
    }
}

#[test]
fn mutations_agree_with_all_their_ranks() {
    let mut text = String::new();
    let mut accepted = std::collections::BTreeSet::new();
    for seed in 0..200 {
        for (name, plan) in sample::mutations(&sample::grid(), seed) {
            let kind = name.split(':').next().unwrap_or("").to_string();
            match verify(&plan) {
                Ok(()) => drop(accepted.insert(name.clone())),
                Err(violations) => {
                    if seed == 0 {
                        text += &format!("{name}\n    {}\n", violations[0]);
                    }
                    if violations.iter().any(|v| v.rule == Rule::Structure) {
                        continue;
                    }
                }
            }
            assert_eq!(hangs(&plan).is_some(), hangs_of_all_ranks(&plan).is_some(), "{kind}, seed {seed}: {name}");
        }
    }
    insta::assert_snapshot!(text);
    insta::assert_debug_snapshot!("accepted", accepted);
}

/// Random numbers below a bound.
struct Dice {
    seed: u32,
    count: u32,
}

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.count += 1;
        philox4x32_10([self.count, 1, 0, 0], [self.seed, 0])[0] as usize % bound
    }
}

/// One class that does nothing, with some buffers of 64 bytes and six lanes for collectives.
fn empty(mesh: Mesh, buffers: u64) -> Plan {
    let mut plan = sample::line();
    plan.programs.truncate(1);
    plan.manifest = plan::Manifest::default();
    plan.programs.iter_mut().flat_map(|p| &mut p.emits).for_each(|emit| emit.of = None);
    plan.header.mesh = mesh;
    let template = plan.classes[0].persistent[0].clone();
    plan.classes[0].persistent = (0..buffers)
        .map(|i| plan::Buffer { name: format!("b{i}").into(), offset: i * 64, bytes: 64, ty: None, ..template.clone() })
        .collect();
    let body = &mut plan.programs[0].bodies[0];
    body.buffers.clear();
    body.lanes = [LaneKind::Compute].into_iter().chain((0..6).map(LaneKind::Comm)).collect();
    (body.instructions, body.events, body.arena_bytes) = (vec![], 0, buffers * 64);
    plan
}

/// One of x and y, or both; each with a lane of its own, and another for messages.
const GROUPS: [&[&str]; 3] = [&["x"], &["y"], &["x", "y"]];

/// Classes of a mesh of up to twelve ranks, cut over no axis, x, or both, which run nearly the same: collectives, events
/// and messages along x, with places exchanged here and there, and now and then one left out.
fn random(dice: &mut Dice) -> Plan {
    let mesh = Mesh::new([("x", 2), ("y", 1 + dice.below(3)), ("z", 1 + dice.below(2))]).expect("a mesh");
    let mut plan = empty(mesh, 2);
    let cut = dice.below(4);
    if cut > 0 {
        plan = sample::split(&plan, &"x".into());
    }
    if cut > 2 {
        plan = sample::split(&plan, &"y".into());
    }
    let mut push = |class: usize, lane: usize, op: Op| {
        let body = &mut plan.programs[0].bodies[class];
        body.instructions.push(Instruction {
            lane: LaneId::new(lane),
            place: PlaceId(0),
            origin: Origin::default(),
            op,
        });
    };
    let classes = plan.classes.len();
    let mut events = 0;
    for id in 0..2 + dice.below(6) as u32 {
        let slice = |buffer| vec![Slice { buffer: plan::BufferId(buffer), offset: 0, bytes: 8 }];
        let collect = |kind, group: &[&str], from, to| {
            let group = group.iter().map(|a| Name::new(a)).collect();
            Op::Collect(Collect { id, kind, group, from, to, why: "chance".into() }.into())
        };
        let kind = dice.below(6);
        let group = dice.below(GROUPS.len());
        let lane = dice.below(2);
        for c in 0..classes {
            if dice.below(40) == 0 {
                continue;
            }
            match kind {
                0..3 => {
                    let sum = CollectKind::AllReduce(Reduce { kind: ReduceKind::Sum, dtype: DType::F32 });
                    push(c, 1 + group, collect(sum, GROUPS[group], slice(0), slice(1)));
                }
                3 => {
                    push(c, 1 + group, Op::Record { event: EventId(events) });
                    push(c, 1 + lane, Op::Wait { event: EventId(events) });
                }
                // One way, if classes know who is who; else both ways, on one lane or two.
                _ => {
                    let terms = [Term { axis: "x".into(), scale: -1 }].into_iter().collect();
                    let peer = Affine { base: 1, terms, least: i64::MIN, most: i64::MAX };
                    let x = plan.classes[c].ranks.at.iter().find(|(axis, _)| *axis == *"x").map(|(_, x)| *x);
                    if x != Some(1) {
                        push(c, 4, collect(CollectKind::Send { peer: peer.clone() }, &["x"], slice(0), vec![]));
                    }
                    if x != Some(0) {
                        let lane = if x.is_some() { 4 } else { 4 + lane };
                        push(c, lane, collect(CollectKind::Receive { peer }, &["x"], vec![], slice(1)));
                    }
                }
            }
        }
        events += u32::from(kind == 3);
    }
    for body in &mut plan.programs[0].bodies {
        body.events = events;
        while body.instructions.len() < events as usize {
            body.instructions.push(Instruction {
                lane: LaneId(0),
                place: PlaceId(0),
                origin: Origin::default(),
                op: Op::Copy { from: whole(0), to: whole(1) },
            });
        }
        if body.instructions.len() > 1 && dice.below(3) == 0 {
            let at = dice.below(body.instructions.len() - 1);
            body.instructions.swap(at, at + 1);
        }
    }
    plan
}

/// 16,384 ranks in four stages: 50,000 collectives each, over three kinds of groups, and messages from stage to stage.
#[test]
fn many_ranks_with_many_collectives() {
    let mesh = Mesh::new([("pp", 4), ("dp", 64), ("cp", 8), ("tp", 8)]).expect("a mesh");
    let mut plan = sample::split(&empty(mesh, 6), &"pp".into());
    let mut id = 0;
    for _ in 0..16_667 {
        for (lane, axis) in ["dp", "cp", "tp"].into_iter().enumerate() {
            let kind = CollectKind::AllReduce(Reduce { kind: ReduceKind::Sum, dtype: DType::F32 });
            let (from, to) = (vec![whole(0)], vec![whole(1 + lane as u32)]);
            let collect = Collect { id, kind, group: vec![axis.into()], from, to, why: "".into() };
            id += 1;
            for body in &mut plan.programs[0].bodies {
                push(body, 1 + lane, Op::Collect(collect.clone().into()));
            }
        }
        // Each stage hands on what it was handed: the way around would be a circle.
        for stage in 0..3 {
            let (sends, receives) = (Affine::constant(stage + 1), Affine::constant(stage));
            let ends = [
                (stage, CollectKind::Send { peer: sends }, vec![whole(4)], vec![]),
                (stage + 1, CollectKind::Receive { peer: receives }, vec![], vec![whole(4)]),
            ];
            for (stage, kind, from, to) in ends {
                let group = vec!["pp".into()];
                let message = Collect { id, kind, group, from, to, why: "".into() };
                push(&mut plan.programs[0].bodies[stage as usize], 4, Op::Collect(message.into()));
            }
            id += 1;
        }
    }
    assert_eq!(verify(&plan), Ok(()));
    let lane: Vec<usize> = {
        let body = &plan.programs[0].bodies[2];
        (0..body.instructions.len()).filter(|&i| body.instructions[i].lane == LaneId(3)).collect()
    };
    plan.programs[0].bodies[2].instructions.swap(lane[7_000], lane[7_001]);
    // All ranks of a group do the same, only in another order: nothing hangs.
    assert_eq!(verify(&plan), Ok(()));
    let messages = &mut plan.programs[0].bodies[1].instructions;
    let at = messages.iter().rposition(|i| i.lane == LaneId(4)).expect("a message");
    messages.remove(at);
    insta::assert_snapshot!(hangs(&plan).expect("a message without its receiver"));
}

fn push(body: &mut plan::Body, lane: usize, op: Op) {
    body.instructions.push(Instruction { lane: LaneId::new(lane), place: PlaceId(0), origin: Origin::default(), op });
}

fn whole(buffer: u32) -> Slice {
    Slice::whole(plan::BufferId(buffer), 8)
}

#[test]
fn random_plans_agree_with_all_their_ranks() {
    let (mut runs, mut meets, mut circles) = (0, 0, 0);
    for seed in 0..3000 {
        let plan = random(&mut Dice { seed, count: 0 });
        let violations = verify(&plan).err().unwrap_or_default();
        assert!(violations.iter().all(|v| v.rule != Rule::Structure), "{violations:?}\n{plan}");
        let found = hangs(&plan);
        let all = hangs_of_all_ranks(&plan);
        assert_eq!(found.is_some(), all.is_some(), "seed {seed}: {found:?}, {all:?}\n{plan}");
        match violations.iter().find(|v| matches!(v.rule, Rule::Rendezvous | Rule::Hang)).map(|v| v.rule) {
            None => runs += 1,
            Some(Rule::Hang) => circles += 1,
            Some(_) => meets += 1,
        }
    }
    assert!(runs > 300 && meets > 300 && circles > 100, "all outcomes are frequent: {runs}, {meets}, {circles}");
}

/// Classes of which one fixes an axis outside the group that the other leaves open: neither stands for all its ranks.
#[test]
fn classes_that_are_not_symmetric_are_refused() {
    let mut plan = sample::split(&sample::grid(), &"fsdp".into());
    let half = sample::split(&plan, &"tp".into());
    // fsdp=0 whole, fsdp=1 in two halves.
    plan.classes.truncate(1);
    plan.classes.extend(half.classes[2..].iter().cloned());
    for (program, other) in plan.programs.iter_mut().zip(&half.programs) {
        program.bodies.truncate(1);
        program.bodies.extend(other.bodies[2..].iter().cloned());
    }
    plan.manifest.parameters.iter_mut().for_each(|p| p.buffers = vec![p.buffers[0]; 3]);
    plan.manifest.states.iter_mut().for_each(|s| s.buffers = vec![s.buffers[0]; 3]);
    assert_eq!(plan.classes[1].ranks, Ranks { at: vec![("fsdp".into(), 1), ("tp".into(), 0)] });
    insta::assert_snapshot!(hangs(&plan).expect("refused"));
}
