//! Tests of disks without room for a checkpoint: older ones go only if the next one fits by that, and never the latest good
//! one.

use std::fs;
use std::path::Path;

use data::{Begin, DataError, Folder, Pieces, Position, Pretrained, Together, latest, needed};
use tempfile::tempdir;
use types::TensorType;

/// Elements of the one parameter: what files take beside it does not matter.
const ELEMENTS: usize = 1 << 16;

fn types() -> [TensorType; 2] {
    [format!("f32[N:{ELEMENTS}]"), "i64[]".into()].map(|ty| ty.parse().expect("a type"))
}

fn need() -> u64 {
    let types = types();
    needed([("w", &types[0]), ("step", &types[1])])
}

/// Saves a step in a folder that has room for `checkpoints` of them.
fn save(folder: &Path, (step, keep): (u64, usize), checkpoints: f64) -> Result<(), DataError> {
    let (types, together) = (types(), Together::alone());
    let (w, s) = (vec![step as u8; 4 * ELEMENTS], step.to_le_bytes());
    let (w, s) = (Pieces::whole("w", &types[0], &w), Pieces::whole("step", &types[1], &s));
    let open = Folder::open(folder, Begin::GoOn, need(), &together)?;
    let open = open.within((checkpoints * need() as f64) as u64);
    open.check_room(step - 1, keep, &together)?;
    let (plan_hash, model, preset) = ("ab".into(), "m.mm".into(), "tiny".into());
    let position = Position { step, samples: 0, seed: 7, plan_hash, model, preset, data: None };
    open.save(&position, (&[w], &[s]), (&Pretrained::default(), keep), &together).map(drop)
}

fn steps(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").file_name());
    let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.retain(|name| name != "latest");
    names.sort();
    names
}

/// What is there, after a save in a folder that had these checkpoints.
fn check(had: &[u64], (step, keep): (u64, usize), checkpoints: f64, expect: Result<&[u64], &str>) {
    let folder = tempdir().expect("a folder");
    had.iter().for_each(|step| save(folder.path(), (*step, 9), 99.0).expect("saved"));
    let saved = save(folder.path(), (step, keep), checkpoints);
    let name = |step: &u64| format!("step-{step:06}");
    match (saved, expect) {
        (Ok(()), Ok(left)) => assert_eq!(steps(folder.path()), left.iter().map(name).collect::<Vec<_>>()),
        (Err(error), Err(told)) => {
            assert_eq!(steps(folder.path()), had.iter().map(name).collect::<Vec<_>>());
            assert!(error.to_string().contains(told), "{error}");
            assert!(error.help().is_some_and(|help| help.contains("--keep N")), "{error}");
        }
        (saved, _) => panic!("{saved:?}, and {:?} are there", steps(folder.path())),
    }
}

#[test]
fn older_checkpoints_go_where_the_next_one_does_not_fit() {
    // There is room, and nothing goes.
    check(&[1, 2, 3], (4, 2), 4.2, Ok(&[1, 2, 3, 4]));
    check(&[1, 2, 3], (4, 3), 3.2, Ok(&[2, 3, 4]));
    check(&[1, 2, 3], (4, 2), 3.2, Ok(&[2, 3, 4]));
    check(&[1, 2, 3], (4, 1), 3.2, Ok(&[2, 3, 4]));
    // A step that is written again.
    check(&[1, 7], (7, 1), 2.2, Ok(&[7]));
    // Steps of another way that the run went stay.
    check(&[1, 2, 7], (3, 1), 3.2, Ok(&[2, 3, 7]));
}

#[test]
fn none_goes_in_vain() {
    check(&[1, 2, 3], (4, 9), 3.2, Err("the disk is full: a checkpoint needs 272.3 KiB, and "));
    check(&[1], (2, 1), 1.2, Err("the disk is full"));
    check(&[], (1, 1), 0.9, Err("KiB are free"));
}

#[test]
fn the_latest_good_one_stays() {
    let folder = tempdir().expect("a folder");
    (1..=4).for_each(|step| save(folder.path(), (step, 9), 99.0).expect("saved"));
    for step in [3, 4] {
        fs::write(folder.path().join(format!("step-{step:06}/state/trainer.json")), "{").expect("damaged");
    }
    save(folder.path(), (5, 1), 4.2).expect("in the room of the first");
    assert_eq!(steps(folder.path()), ["step-000002", "step-000003", "step-000004", "step-000005"]);
    fs::remove_dir_all(folder.path().join("step-000005")).expect("removed");
    assert_eq!(latest(folder.path()).expect("good").0.position.step, 2);
    save(folder.path(), (5, 1), 3.2).expect_err("the second stays");
    assert_eq!(latest(folder.path()).expect("good").0.position.step, 2);
}
