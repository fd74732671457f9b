//! Every collective on random meshes, groups, sizes and types, against direct computation.

mod cases;
mod ranks;

use cases::{Case, cases};
use plan::{Affine, CollectKind, Reduce, ReduceKind, Term};
use proptest::prelude::*;
use ranks::{Part, collect, each, mesh};
use types::DType;

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
