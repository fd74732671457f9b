//! Every collective on random meshes, groups, sizes and types, against direct computation.

mod ranks;

use half::{bf16, f16};
use plan::{Affine, Collect, CollectKind, Reduce, ReduceKind, Term};
use proptest::prelude::*;
use ranks::{Bytes, Part, collect, each, mesh};
use types::{DType, Mesh};

#[derive(Clone, Debug)]
struct Case {
    mesh: Mesh,
    collect: Collect,
    dtype: DType,
    /// Of the larger side of each tensor, by the size of the group.
    elements: Vec<usize>,
    seed: u64,
}

impl Case {
    /// The ranks of `rank`'s group by position, computed by search.
    fn group(&self, rank: usize) -> Vec<usize> {
        let outside = |r: usize| -> Vec<usize> {
            let at = self.mesh.coordinates(r);
            let axes = self.mesh.axes.iter().zip(at);
            axes.filter(|(axis, _)| !self.collect.group.contains(&axis.name)).map(|(_, c)| c).collect()
        };
        let inside = |r: &usize| -> Vec<usize> {
            let at = self.mesh.coordinates(*r);
            let axes = self.collect.group.iter().map(|axis| self.mesh.position(axis).expect("an axis"));
            axes.map(|axis| at[axis]).collect()
        };
        let mut group: Vec<usize> = (0..self.mesh.world()).filter(|r| outside(*r) == outside(rank)).collect();
        group.sort_by_key(inside);
        group
    }

    fn sources(&self, rank: usize, step: u64) -> Vec<Bytes> {
        let ranks = self.group(rank).len();
        let each = |(i, count): (usize, &usize)| {
            let count = if matches!(self.collect.kind, CollectKind::AllGather) { count / ranks } else { *count };
            let mut state = self.seed ^ (rank as u64) << 40 ^ (i as u64) << 20 ^ step;
            (0..count).flat_map(|_| element(self.dtype, &mut state)).collect()
        };
        self.elements.iter().enumerate().map(each).collect()
    }

    fn targets(&self, rank: usize) -> Vec<usize> {
        let ranks = self.group(rank).len();
        let elements = self.elements.iter().map(|count| match self.collect.kind {
            CollectKind::ReduceScatter(_) => count / ranks,
            _ => *count,
        });
        elements.map(|n| n * self.dtype.bytes()).collect()
    }

    fn expected(&self, rank: usize, step: u64) -> Vec<Bytes> {
        let group = self.group(rank);
        let (ranks, me) = (group.len(), group.iter().position(|r| *r == rank).expect("a member"));
        let sources: Vec<_> = group.iter().map(|r| self.sources(*r, step)).collect();
        let of = |i: usize| sources.iter().map(move |s| s[i].clone());
        let piece = |bytes: &Bytes, at: usize| {
            let size = bytes.len() / ranks;
            bytes[at * size..(at + 1) * size].to_vec()
        };
        let tensor = |i: usize| match &self.collect.kind {
            CollectKind::AllReduce(how) => reduce(*how, of(i).collect()),
            CollectKind::ReduceScatter(how) => piece(&reduce(*how, of(i).collect()), me),
            CollectKind::AllGather => of(i).collect::<Vec<_>>().concat(),
            CollectKind::AllToAll => of(i).map(|s| piece(&s, me)).collect::<Vec<_>>().concat(),
            CollectKind::Broadcast { root } => {
                sources[root.at(&self.mesh, &self.mesh.coordinates(rank)) as usize][i].clone()
            }
            CollectKind::Permute { shifts } => {
                let from = (0..ranks).find(|p| (*p as i64 + shifts[i]).rem_euclid(ranks as i64) == me as i64);
                sources[from.expect("a sender")][i].clone()
            }
            CollectKind::Send { .. } | CollectKind::Receive { .. } => vec![],
        };
        (0..self.elements.len()).map(tensor).collect()
    }
}

/// A number from 0 to 2^32, by a linear congruence.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 32
}

/// Values of many magnitudes, so that the order of a sum shows.
fn element(dtype: DType, state: &mut u64) -> Bytes {
    let number = next(state) as i64 - (1 << 31);
    let real = number as f64 / f64::from(1 << (next(state) % 30) as u32) / 1000.0;
    match dtype {
        DType::F64 => real.to_ne_bytes().to_vec(),
        DType::F32 => (real as f32).to_ne_bytes().to_vec(),
        DType::BF16 => bf16::from_f64(real).to_ne_bytes().to_vec(),
        DType::F16 => f16::from_f64(real / 100.0).to_ne_bytes().to_vec(),
        DType::I64 => (number << 31).to_ne_bytes().to_vec(),
        DType::I32 => (number as i32).to_ne_bytes().to_vec(),
        DType::Bool | DType::Work => vec![u8::from(number > 0)],
    }
}

fn reduce(how: Reduce, sources: Vec<Bytes>) -> Bytes {
    let bytes = how.dtype.bytes();
    let count = sources[0].len() / bytes;
    let at = |s: &Bytes, i: usize| s[i * bytes..][..bytes].to_vec();
    let column = |i: usize| sources.iter().map(move |s| at(s, i));
    macro_rules! fold {
        ($ty:ty, $wide:ty, $widen:expr, $narrow:expr, $add:expr) => {{
            let load = |b: Bytes| -> $wide { $widen(<$ty>::from_ne_bytes(b.try_into().expect("an element"))) };
            let max = |a: $wide, b: $wide| if b > a { b } else { a };
            let folded = (0..count).map(|i| {
                let values = column(i).map(load);
                let value = match how.kind {
                    ReduceKind::Sum => values.reduce($add),
                    ReduceKind::Max => values.reduce(max),
                };
                let narrow: $ty = $narrow(value.expect("a source"));
                narrow.to_ne_bytes()
            });
            folded.flatten().collect()
        }};
    }
    match how.dtype {
        DType::F64 => fold!(f64, f64, |x| x, |x| x, |a, b| a + b),
        DType::F32 => fold!(f32, f32, |x| x, |x| x, |a, b| a + b),
        DType::BF16 => fold!(bf16, f32, bf16::to_f32, bf16::from_f32, |a, b| a + b),
        DType::F16 => fold!(f16, f32, f16::to_f32, f16::from_f32, |a, b| a + b),
        DType::I64 => fold!(i64, i64, |x| x, |x| x, i64::wrapping_add),
        DType::I32 => fold!(i32, i32, |x| x, |x| x, i32::wrapping_add),
        DType::Bool | DType::Work => vec![],
    }
}

fn check(case: &Case, steps: u64) {
    let wrong = each(case.mesh.world(), None, |rank| {
        use comm::Communicator;
        let me = rank.rank();
        let part = Part::new(&*rank, &case.mesh, &case.collect, case.sources(me, 0), &case.targets(me));
        let mut part = part.expect("a collective that fits");
        (0..steps).find(|step| {
            part.refill(&case.sources(me, *step));
            part.run().expect("all ranks come") != case.expected(me, *step)
        })
    });
    for (rank, step) in wrong.into_iter().enumerate() {
        assert_eq!(step, None, "rank {rank} got something else in that step");
    }
}

fn kinds(tensors: usize) -> impl Strategy<Value = CollectKind> {
    let kind = prop_oneof![Just(ReduceKind::Sum), Just(ReduceKind::Max)];
    let reduce = kind.prop_map(|kind| Reduce { kind, dtype: DType::F32 });
    prop_oneof![
        3 => reduce.clone().prop_map(CollectKind::AllReduce),
        2 => reduce.prop_map(CollectKind::ReduceScatter),
        1 => Just(CollectKind::AllGather),
        1 => Just(CollectKind::AllToAll),
        1 => Just(CollectKind::Broadcast { root: Affine::constant(1) }),
        2 => prop::collection::vec(-5i64..=5, tensors).prop_map(|shifts| CollectKind::Permute { shifts }),
    ]
}

fn cases() -> impl Strategy<Value = Case> {
    let groups = prop_oneof![
        Just((vec![("dp", 2), ("tp", 2)], vec!["tp"])),
        Just((vec![("dp", 2), ("tp", 3)], vec!["tp"])),
        Just((vec![("dp", 4), ("tp", 2)], vec!["dp"])),
        Just((vec![("dp", 2), ("cp", 2), ("tp", 2)], vec!["tp", "dp"])),
        Just((vec![("dp", 2), ("cp", 2), ("tp", 2)], vec!["dp", "cp"])),
        Just((vec![("dp", 3), ("tp", 2)], vec!["dp", "tp"])),
    ];
    let types = [DType::F32, DType::BF16, DType::F16, DType::F64, DType::I32, DType::I64];
    // From nothing at all to where an all-reduce goes by shares.
    let pieces = prop_oneof![4 => 0usize..40, 1 => 3000usize..9000];
    let tensors = prop::collection::vec(pieces, 1..4);
    (groups, prop::sample::select(types.to_vec()), tensors, any::<u64>())
        .prop_flat_map(|groups| (kinds(groups.2.len()), Just(groups)))
        .prop_map(|(mut kind, ((axes, group), dtype, pieces, seed))| {
            if let CollectKind::AllReduce(how) | CollectKind::ReduceScatter(how) = &mut kind {
                how.dtype = dtype;
            }
            let mesh = mesh(&axes);
            let ranks: usize = group.iter().map(|axis| mesh.size(axis)).product();
            // An all-reduce and what is like it need not divide by the number of ranks.
            let shared = matches!(kind, CollectKind::AllGather | CollectKind::AllToAll | CollectKind::ReduceScatter(_));
            let elements = pieces.iter().map(|n| if shared { n * ranks } else { n * 3 + 1 }).collect();
            Case { mesh, collect: collect(7, kind, &group), dtype, elements, seed }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn collectives_do_what_they_say(case in cases()) {
        check(&case, 3);
    }
}

#[test]
fn many_rounds_on_one_meeting() {
    for kind in [
        CollectKind::AllReduce(Reduce { kind: ReduceKind::Sum, dtype: DType::BF16 }),
        CollectKind::Permute { shifts: vec![1, -1] },
    ] {
        let mesh = mesh(&[("cp", 4)]);
        let collect = collect(0, kind, &["cp"]);
        check(&Case { mesh, collect, dtype: DType::BF16, elements: vec![5, 1000], seed: 1 }, 2000);
    }
}

#[test]
fn sub_axes_form_groups() {
    let mesh = mesh(&[("cp.ring", 2), ("cp.ulysses", 2), ("tp", 2)]);
    let sum = Reduce { kind: ReduceKind::Sum, dtype: DType::F32 };
    let whole = collect(0, CollectKind::AllReduce(sum), &["cp.ring", "cp.ulysses"]);
    check(&Case { mesh, collect: whole, dtype: DType::F32, elements: vec![9], seed: 2 }, 3);
}

/// Roots and peers are functions of coordinates.
#[test]
fn peers_follow_coordinates() {
    let mesh = mesh(&[("pp", 3), ("tp", 2)]);
    let at = |base: i64, scale: i64| {
        let terms = [Term { axis: "pp".into(), scale }].into_iter().collect();
        Affine { base, terms, least: 0, most: 2 }
    };
    // Each stage sends to the next, all under one id.
    let (send, receive) = (CollectKind::Send { peer: at(1, 1) }, CollectKind::Receive { peer: at(-1, 1) });
    let got = each(6, None, |rank| {
        use comm::Communicator;
        let stage = mesh.coordinates(rank.rank())[0];
        let part = |kind, from, to: &[usize]| Part::new(&*rank, &mesh, &collect(5, kind, &["pp"]), from, to);
        let mut sent = (stage < 2).then(|| part(send.clone(), vec![vec![rank.rank() as u8; 3]], &[]).expect("fits"));
        let mut taken = (stage > 0).then(|| part(receive.clone(), vec![], &[3]).expect("fits"));
        let came = taken.as_mut().map(|part| part.run().expect("received")[0][0]);
        if let Some(part) = &mut sent {
            part.run().expect("sent");
        }
        came
    });
    assert_eq!(got, [None, None, Some(0), Some(1), Some(2), Some(3)]);
}

/// If a send were buffered, it would return before its receive begins.
#[test]
fn a_send_returns_when_its_receive_took_the_bytes() {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    let mesh = mesh(&[("pp", 2)]);
    let returned = AtomicBool::new(false);
    each(2, None, |rank| {
        use comm::Communicator;
        if rank.rank() == 0 {
            let send = collect(0, CollectKind::Send { peer: 1.into() }, &["pp"]);
            let mut part = Part::new(&*rank, &mesh, &send, vec![vec![3; 8]], &[]).expect("fits");
            part.run().expect("sent");
            returned.store(true, SeqCst);
            part.refill(&[vec![9; 8]]);
        } else {
            let receive = collect(0, CollectKind::Receive { peer: 0.into() }, &["pp"]);
            let mut part = Part::new(&*rank, &mesh, &receive, vec![], &[8]).expect("fits");
            std::thread::sleep(std::time::Duration::from_millis(30));
            assert!(!returned.load(SeqCst), "the send did not wait");
            assert_eq!(part.run().expect("received")[0], [3; 8]);
        }
    });
}
