//! A process that works is waited for. The only test of its program, since a sign of work is the whole process's.

use std::thread;
use std::time::Duration;

use comm::{Hub, Link};

/// Twice as long as the limit, with a sign of work now and then.
#[test]
fn who_works_is_waited_for() {
    let hub = Hub::open(2).expect("a hub");
    let rank = |rank| {
        let link = Link::join(hub.addresses(), rank, 2, Duration::from_secs(2)).expect("the hub is there");
        if rank == 1 {
            for _ in 0..10 {
                thread::sleep(Duration::from_millis(400));
                comm::worked();
            }
        }
        let result = link.gather("save", Vec::new());
        (link, result.map_err(|e| e.to_string()))
    };
    let all = thread::scope(|scope| {
        let ranks = [scope.spawn(|| rank(0)), scope.spawn(|| rank(1))];
        ranks.map(|rank| rank.join().expect("a rank"))
    });
    for (_link, result) in &all {
        assert_eq!(result, &Ok(vec![Vec::new(); 2]));
    }
}
