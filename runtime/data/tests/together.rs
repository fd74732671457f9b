//! What processes do together, here with a thread for each: where one cannot do its part, all know it, and whose it was.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use comm::{Hub, Link};
use data::{DataError, Together, same_folder};

/// Runs as many processes, each in a thread of its own, with a limit that no test comes to.
fn each<T: Send>(world: usize, run: impl Fn(Together) -> T + Sync) -> Vec<T> {
    let hub = Hub::open(world).expect("a hub");
    thread::scope(|scope| {
        let (run, at) = (&run, hub.addresses());
        let link = move |rank| Link::join(at, rank, world, Duration::from_secs(600)).expect("the hub is there");
        let ranks: Vec<_> = (0..world)
            .map(|rank| {
                scope.spawn(move || {
                    let link: Arc<Link> = link(rank);
                    let result = run(Together::with(link.clone()));
                    // Rank 0's connection carries what others wait for.
                    link.gather("end", Vec::new()).expect("all come");
                    result
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().expect("a rank")).collect()
    })
}

fn file_error(path: &str) -> DataError {
    DataError::File { path: path.into(), error: std::io::ErrorKind::StorageFull.into() }
}

#[test]
fn all_fail_if_one_cannot_do_its_part() {
    let told = each(3, |together| {
        let own = vec![together.number() as u8];
        let part = if together.number() == 1 { Err(file_error("/full")) } else { Ok(own.clone()) };
        let failed = together.agree("write", part).map_err(|e| e.to_string());
        // What went wrong once does not stand in the way of what comes.
        (failed, together.agree("write", Ok(own)).map_err(|e| e.to_string()))
    });
    for (rank, (failed, good)) in told.into_iter().enumerate() {
        let mut expect = "/full: no storage space".to_string();
        if rank != 1 {
            expect = format!("rank 1: {expect}");
        }
        assert_eq!(failed, Err(expect));
        assert_eq!(good, Ok(vec![vec![0], vec![1], vec![2]]));
    }
}

#[test]
fn one_path_that_is_two_folders_is_found() {
    let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
    let told = each(3, |together| {
        let apart = &folders[usize::from(together.number() == 2)];
        let one = same_folder::prove(&folders[0].path().join("made/on the way"), &together).map_err(|e| e.to_string());
        (one, same_folder::prove(apart.path(), &together).map_err(|e| e.to_string()))
    });
    for (rank, (one, apart)) in told.into_iter().enumerate() {
        assert_eq!(one, Ok(()));
        let apart = apart.expect_err("two folders");
        assert!(apart.contains("it is not the folder that rank 0 has under this path"), "{apart}");
        assert_eq!(apart.starts_with("rank 2: "), rank != 2, "{apart}");
    }
    let left = |folder: &tempfile::TempDir| std::fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!((left(&folders[0]), left(&folders[1])), (1, 0), "no probe is left");
}
