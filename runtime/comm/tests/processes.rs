//! The collectives among ranks that are processes: this test starts itself under `mpirun`, once for each size of world.
#![cfg(feature = "mpi")]

mod cases;
mod ranks;

use std::process::Command;
use std::time::Duration;

use cases::{Case, cases};
use comm::{Communicator, Launched, Mpi};
use plan::{Affine, CollectKind, Term};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use ranks::{Part, collect, mesh};

/// How many collectives are tried, over all worlds.
const CASES: usize = 200;

#[test]
fn collectives_of_processes_do_what_they_say() {
    let own = std::env::current_exe().expect("this test");
    for world in [4, 6, 8] {
        let mut mpirun = Command::new("mpirun");
        mpirun.args(["--oversubscribe", "-n", &world.to_string()]).arg(&own);
        mpirun.args(["--exact", "one_rank", "--ignored", "--nocapture"]);
        // Whoever tests in a container is root.
        mpirun.envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")]);
        let told = mpirun.output().expect("mpirun runs: scripts/setup-mpi.sh installs it");
        let text = String::from_utf8_lossy(&told.stdout) + String::from_utf8_lossy(&told.stderr);
        assert!(told.status.success(), "a world of {world}:\n{text}");
        assert_eq!(text.matches("1 passed").count(), world, "a world of {world}:\n{text}");
    }
}

#[test]
#[ignore = "a rank of the test above, for mpirun"]
fn one_rank() {
    let launched = Launched::start().expect("MPI starts");
    let (rank, _link) = launched.join(Duration::from_secs(60), || ()).expect("the others come");
    // All ranks draw the same cases.
    let mut runner = TestRunner::deterministic();
    let drawn = (0..CASES).map(|_| cases().new_tree(&mut runner).expect("a case").current());
    let of_this_world: Vec<Case> = drawn.filter(|case| case.mesh.world() == rank.world()).collect();
    assert!(of_this_world.len() > CASES / 10, "only {} of {CASES}", of_this_world.len());
    for case in &of_this_world {
        check(&rank, case);
    }
    pass_on(&rank);
    rank.leave();
    launched.finish();
}

/// Three times with other values, so that what is persistent in a collective is used again.
fn check(rank: &Mpi, case: &Case) {
    let me = rank.rank();
    let part = Part::new(rank, &case.mesh, &case.collect, case.sources(me, 0), &case.targets(me));
    let mut part = part.expect("a collective that fits");
    for step in 0..3 {
        part.refill(&case.sources(me, step));
        let got = part.run().expect("all ranks come");
        assert!(got == case.expected(me, step), "rank {me} got something else from {case:?}");
    }
}

/// Each rank sends to the next of its column, and all but the first receive.
fn pass_on(rank: &Mpi) {
    let stages = rank.world() / 2;
    let mesh = mesh(&[("pp", stages), ("tp", 2)]);
    let stage = mesh.coordinates(rank.rank())[0];
    let beside = |base: i64| {
        let terms = [Term { axis: "pp".into(), scale: 1 }].into_iter().collect();
        Affine { base, terms, least: 0, most: stages as i64 - 1 }
    };
    let part = |kind, from, to: &[usize]| Part::new(rank, &mesh, &collect(5, kind, &["pp"]), from, to).expect("fits");
    if stage > 0 {
        let mut taken = part(CollectKind::Receive { peer: beside(-1) }, vec![], &[3]);
        assert_eq!(taken.run().expect("received")[0], vec![rank.rank() as u8 - 2; 3]);
    }
    if stage + 1 < stages {
        part(CollectKind::Send { peer: beside(1) }, vec![vec![rank.rank() as u8; 3]], &[]).run().expect("sent");
    }
}
