//! Worlds that end before their time: ranks that never come, fail, leave, or wait for one another.

mod ranks;

use std::sync::{Arc, Barrier};
use std::time::Duration;

use comm::{Cause, CommError, Communicator, Report, Standing, Whereabouts};
use plan::{CollectKind, Reduce, ReduceKind};
use ranks::{Bytes, Part, collect, each, mesh};
use types::DType;

const SUM: CollectKind = CollectKind::AllReduce(Reduce { kind: ReduceKind::Sum, dtype: DType::F32 });

fn report(result: Result<&[Bytes], CommError>) -> Report {
    match result {
        Err(CommError::Ended(report)) => (*report).clone(),
        other => panic!("{other:?} is no end of the world"),
    }
}

/// Whoever waits too long names the rank that did not come, and all who wait say the same.
#[test]
fn a_rank_that_never_comes_is_the_culprit() {
    let mesh = mesh(&[("dp", 3)]);
    let over = Barrier::new(3);
    let reports = each(3, Some(Duration::from_millis(50)), |rank| {
        let mut part = Part::new(&*rank, &mesh, &collect(7, SUM, &["dp"]), vec![vec![0; 8]], &[8]).expect("fits");
        let report = (rank.rank() != 1).then(|| report(part.run()));
        over.wait();
        // It comes after all, and must not wait.
        report.unwrap_or_else(|| self::report(part.run()))
    });
    for report in &reports {
        let Cause::Stalled { culprits, .. } = &report.cause else { panic!("{:?}", report.cause) };
        assert_eq!(culprits, &[1]);
        assert_eq!((report.waiting[0].id, &report.waiting[0].missing[..]), (Some(7), &[1][..]));
    }
    assert_eq!(reports[0], reports[2]);
}

/// A rank in a run whose lanes do nothing but wait.
struct Idle;

impl Whereabouts for Idle {
    fn standing(&self) -> Standing {
        Standing::Running { run: "step 1".into(), lanes: vec![] }
    }

    fn collective(&self, id: u32) -> String {
        format!("message {id}")
    }
}

/// No one is busy: three ranks in a circle of messages wait for each other.
#[test]
fn a_circle_has_no_culprit() {
    let mesh = mesh(&[("pp", 3)]);
    let reports = each(3, Some(Duration::from_millis(50)), |rank| {
        let me = rank.rank();
        rank.attach(Arc::new(Idle));
        // Each sends to the next first, and nobody receives.
        let peer = ((me + 1) % 3) as i64;
        let send = collect(me as u32, CollectKind::Send { peer: peer.into() }, &["pp"]);
        let mut part = Part::new(&*rank, &mesh, &send, vec![vec![1; 8]], &[]).expect("fits");
        report(part.run())
    });
    for report in reports {
        let Cause::Stalled { culprits, .. } = &report.cause else { panic!("{:?}", report.cause) };
        assert_eq!(culprits, &[0usize; 0]);
        assert_eq!(report.waiting.len(), 3, "{report:?}");
    }
}

#[test]
fn a_rank_that_fails_ends_the_run_of_all() {
    let mesh = mesh(&[("dp", 2), ("tp", 2)]);
    let reports = each(4, None, |rank| {
        let mut part = Part::new(&*rank, &mesh, &collect(1, SUM, &["tp"]), vec![vec![0; 8]], &[8]).expect("fits");
        if rank.rank() == 3 {
            rank.fail("out of memory");
            return None;
        }
        // Rank 2 is in the group of the failed one. The others may meet once before they hear of it, and then no more.
        while part.run().is_ok() {}
        Some((report(part.run()), rank.failure()))
    });
    for (found, failure) in reports.into_iter().flatten() {
        assert_eq!(found.cause, Cause::Failed { rank: 3, why: "out of memory".into() });
        assert!(matches!(failure, Some(CommError::Ended(_))));
    }
}

#[test]
fn a_rank_that_leaves_is_not_waited_for() {
    let mesh = mesh(&[("dp", 2)]);
    let reports = each(2, None, |rank| {
        let mut part = Part::new(&*rank, &mesh, &collect(1, SUM, &["dp"]), vec![vec![0; 8]], &[8]).expect("fits");
        part.run().expect("both are here");
        if rank.rank() == 1 {
            // Its communicator is dropped with the thread.
            return None;
        }
        let found = report(part.run());
        while !rank.is_alone() {
            std::thread::yield_now();
        }
        Some(found)
    });
    let found = reports.into_iter().flatten().next().expect("rank 0 reports");
    assert_eq!(found.cause, Cause::Left { rank: 1 });
    assert_eq!(found.missing[0].standing, Standing::Left);
}
