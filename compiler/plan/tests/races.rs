//! The race check against its definition: on random programs, it agrees with a search over all pairs of instructions.

use plan::{
    Access, Affine, BufferId, Instruction, KernelId, LaneId, LaneKind, Launch, Life, Op, Origin, PlaceId, Plan, Rule,
    Slice, sample, verify,
};
use types::philox4x32_10;

/// Random numbers below a bound.
struct Dice {
    seed: u32,
    count: u32,
}

impl Dice {
    fn below(&mut self, bound: u32) -> u32 {
        self.count += 1;
        philox4x32_10([self.count, 0, 0, 0], [self.seed, 0])[0] % bound
    }
}

const BYTES: u64 = 32;

/// A program on three lanes whose copies and launches go between slices of four persistent buffers.
fn random(dice: &mut Dice) -> Plan {
    let mut plan = sample::line();
    plan.programs.truncate(1);
    plan.manifest = plan::Manifest::default();
    plan.programs.iter_mut().flat_map(|p| &mut p.emits).for_each(|emit| emit.of = None);
    let class = &mut plan.classes[0];
    let template = class.persistent[0].clone();
    class.persistent = (0..4)
        .map(|i| plan::Buffer {
            name: format!("b{i}").into(),
            offset: i * BYTES,
            bytes: BYTES,
            ty: None,
            ..template.clone()
        })
        .collect();
    assert_eq!(template.life, Life::Persistent);
    let body = &mut plan.programs[0].bodies[0];
    body.buffers.clear();
    body.lanes = vec![LaneKind::Compute, LaneKind::Copy, LaneKind::Comm(0)];
    body.instructions.clear();
    body.arena_bytes = 4 * BYTES;
    body.events = 0;
    let slice = |dice: &mut Dice, buffer: u32| {
        let offset = u64::from(dice.below(4)) * 8;
        let bytes = 8 * u64::from(1 + dice.below((BYTES - offset) as u32 / 8));
        Slice { buffer: BufferId(buffer), offset, bytes }
    };
    for _ in 0..4 + dice.below(12) {
        let op = match dice.below(6) {
            0 | 1 => {
                body.events += 1;
                Op::Record { event: plan::EventId(body.events - 1) }
            }
            2 | 3 if body.events > 0 => Op::Wait { event: plan::EventId(dice.below(body.events)) },
            4 => {
                // `count`: one argument, read and written.
                let buffer = dice.below(4);
                Op::Launch(Launch {
                    kernel: KernelId(4),
                    args: vec![slice(dice, buffer)],
                    scalars: Vec::<Affine>::new(),
                })
            }
            _ => {
                let from = dice.below(4);
                let source = slice(dice, from);
                let to = Slice { buffer: BufferId((from + 1 + dice.below(3)) % 4), ..source };
                Op::Copy { from: source, to }
            }
        };
        body.instructions.push(Instruction {
            lane: LaneId(dice.below(3)),
            place: PlaceId(0),
            origin: Origin::default(),
            op,
        });
    }
    plan
}

/// Whether two instructions conflict with nothing that orders them, by looking at all pairs.
fn races(plan: &Plan) -> bool {
    let body = &plan.programs[0].bodies[0];
    let list = &body.instructions;
    let n = list.len();
    let mut before = vec![vec![false; n]; n];
    for i in 0..n {
        for j in i + 1..n {
            let event =
                matches!((&list[i].op, &list[j].op), (Op::Record { event: a }, Op::Wait { event: b }) if a == b);
            before[i][j] = list[i].lane == list[j].lane || event;
        }
    }
    for k in 0..n {
        for i in 0..n {
            for j in 0..n {
                before[i][j] |= before[i][k] && before[k][j];
            }
        }
    }
    let touches = |i: usize| -> Vec<(Slice, Access)> { list[i].op.touches(|k| plan.accesses(k)).to_vec() };
    let conflict = |i: usize, j: usize| {
        touches(i).iter().any(|(a, how)| {
            touches(j).iter().any(|(b, also)| {
                let meet = a.buffer == b.buffer && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
                meet && (how.writes() || also.writes())
            })
        })
    };
    (0..n).any(|i| (i + 1..n).any(|j| !before[i][j] && conflict(i, j)))
}

#[test]
fn agrees_with_the_search_over_all_pairs() {
    let mut counts = [0, 0];
    for seed in 0..4000 {
        let plan = random(&mut Dice { seed, count: 0 });
        let found = match verify(&plan) {
            Ok(()) => false,
            Err(violations) => {
                assert!(violations.iter().all(|v| v.rule == Rule::Race), "{violations:?}");
                true
            }
        };
        assert_eq!(found, races(&plan), "seed {seed}\n{plan}");
        counts[usize::from(found)] += 1;
    }
    assert!(counts.iter().all(|c| *c > 400), "both outcomes are frequent: {counts:?}");
}
