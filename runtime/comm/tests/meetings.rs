//! Meetings of ranks that are processes, here with a thread for each: who does not come is named, within the limit.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use comm::{Cause, CommError, Hub, Link, Report};

/// More than a limit, and less than anybody waits by hand.
const LITTLE: Duration = Duration::from_secs(6);

/// Runs a rank each in a thread of its own.
fn each<T: Send>(world: usize, patience: Duration, run: impl Fn(Arc<Link>) -> T + Sync) -> Vec<T> {
    let hub = Hub::open(world).expect("a hub");
    let at = hub.addresses();
    thread::scope(|scope| {
        let run = &run;
        let ranks = (0..world)
            .map(|rank| scope.spawn(move || run(Link::join(at, rank, world, patience).expect("the hub is there"))));
        let ranks: Vec<_> = ranks.collect();
        ranks.into_iter().map(|rank| rank.join().expect("a rank")).collect()
    })
}

fn report(result: Result<Vec<Vec<u8>>, CommError>) -> Report {
    match result {
        Err(CommError::Ended(report)) => (*report).clone(),
        other => panic!("{other:?} is no end of the run"),
    }
}

#[test]
fn all_get_what_each_gives() {
    let got = each(3, Duration::from_secs(60), |link| {
        let own = vec![link.rank() as u8; 2];
        let all = link.gather("give", own.clone()).expect("all come");
        (all, link.collect("collect", own).expect("all come"))
    });
    let all = vec![vec![0, 0], vec![1, 1], vec![2, 2]];
    let nothing = vec![Vec::<u8>::new(); 3];
    assert_eq!(got, [(all.clone(), all.clone()), (all.clone(), nothing.clone()), (all, nothing)]);
}

#[test]
fn who_never_comes_is_named_by_all() {
    for culprit in [0, 2] {
        let over = Barrier::new(3);
        let start = Instant::now();
        let reports = each(3, Duration::from_secs(1), |link| {
            let report = (link.rank() != culprit).then(|| report(link.gather("save", Vec::new())));
            over.wait();
            report
        });
        assert!(start.elapsed() < LITTLE, "{:?}", start.elapsed());
        for report in reports.iter().flatten() {
            let Cause::Stalled { culprits, .. } = &report.cause else { panic!("{:?}", report.cause) };
            assert_eq!(culprits, &[culprit]);
            let text = report.to_string();
            let line = format!("the others wait for rank {culprit} to save");
            assert!(text.contains(&format!("rank {culprit} holds up the others")) && text.contains(&line), "{text}");
        }
    }
}

/// The limit holds from when the first has come, whoever waits last.
#[test]
fn who_waits_in_another_meeting_is_not_to_blame() {
    let over = Barrier::new(3);
    let reports = each(3, Duration::from_secs(1), |link| {
        // Rank 1 waits for rank 2, too, which comes to neither.
        let report = match link.rank() {
            0 => Some(report(link.gather("save", Vec::new()))),
            1 => Some(report(link.gather("load", Vec::new()))),
            _ => None,
        };
        over.wait();
        report
    });
    for report in reports.iter().flatten() {
        let Cause::Stalled { culprits, .. } = &report.cause else { panic!("{:?}", report.cause) };
        assert!(culprits.contains(&2), "{report}");
    }
}

#[test]
fn who_has_left_is_named_before_the_limit() {
    let reports = each(3, Duration::from_secs(600), |link| {
        if link.rank() == 1 {
            link.farewell();
            return None;
        }
        Some(report(link.gather("save", Vec::new())))
    });
    assert!(reports.iter().flatten().all(|report| report.cause == Cause::Left { rank: 1 }));
}

/// Collectives end before meetings do.
#[test]
fn who_runs_no_more_collectives_still_comes_to_meetings() {
    let got = each(3, Duration::from_secs(60), |link| {
        link.leave();
        if link.rank() == 1 {
            // Rank 0 looks at those who are missing each second.
            thread::sleep(Duration::from_millis(2500));
        }
        link.gather("end", Vec::new()).is_ok()
    });
    assert_eq!(got, [true; 3]);
}

#[test]
fn who_fails_is_named_before_the_limit() {
    let over = Barrier::new(3);
    let reports = each(3, Duration::from_secs(600), |link| {
        let report = match link.rank() {
            2 => {
                link.fail("the disk is full");
                None
            }
            _ => Some(report(link.gather("save", Vec::new()))),
        };
        over.wait();
        report
    });
    for report in reports.iter().flatten() {
        assert_eq!(report.cause, Cause::Failed { rank: 2, why: "the disk is full".into() });
    }
}

#[test]
fn what_does_not_fit_a_message_is_refused_at_once() {
    let results = each(2, Duration::from_secs(600), |link| match link.rank() {
        0 => link.gather("give", vec![0; 1 << 27]).expect_err("too large").to_string(),
        _ => String::new(),
    });
    assert!(results[0].contains("134217728 bytes"), "{results:?}");
}
