//! Random meshes of up to eight ranks, and what a module may hint of them.

use std::collections::BTreeSet;

use diag::PlaceId;
use ir::{Module, ShardingHint, Stored};
use types::{Axis, Mesh, Name};

use plan_tests::tape::Tape;

const AXES: [&str; 5] = ["dp", "fsdp", "cp.ring", "cp.ulysses", "tp"];

/// A mesh of two to eight ranks; some axes have size 1.
pub fn mesh(tape: &mut Tape<'_>) -> Mesh {
    let world = tape.pick(&[2, 4, 8, 3, 6, 8, 4, 5, 7]);
    let mut sizes = [1usize; AXES.len()];
    let mut rest: usize = world;
    let mut prime = 2;
    while rest > 1 {
        if rest.is_multiple_of(prime) {
            sizes[AXES.len() - 1 - tape.below(AXES.len())] *= prime;
            rest /= prime;
        } else {
            prime += 1;
        }
    }
    Mesh { axes: AXES.into_iter().zip(sizes).map(|(name, size)| Axis { name: name.into(), size }).collect() }
}

/// Either what the command line asks for, or anything.
pub fn hints(tape: &mut Tape<'_>, module: &Module) -> Vec<(ShardingHint, PlaceId)> {
    let mut hints = if tape.one_in(2) { usual() } else { vec![] };
    let dims: Vec<Name> = dims(module).into_iter().collect();
    let axes: Vec<Name> = module.mesh.axes.iter().filter(|a| a.size > 1).map(|a| a.name.clone()).collect();
    let some = |tape: &mut Tape<'_>| {
        let mut chosen = axes.clone();
        tape.shuffle(&mut chosen);
        chosen.truncate(1 + tape.below(2));
        chosen
    };
    if tape.one_in(5) {
        // Keys alone: parts of a softmax are merged.
        hints.push(ShardingHint::Shard { dim: "M".into(), axes: some(tape), exact: false });
    }
    for _ in 0..tape.below(5) {
        let (dim, of) = (tape.pick(&dims), tape.pick(&dims));
        let axes = some(tape);
        hints.push(match tape.below(8) {
            0..5 => ShardingHint::Shard { dim, axes, exact: false },
            5 => ShardingHint::SequenceParallel { dim, of, axes },
            6 => ShardingHint::Store { what: tape.pick(&[Stored::Parameters, Stored::Optimizer]), axes },
            _ => ShardingHint::Exchange { axes },
        });
    }
    hints.into_iter().map(|hint| (hint, PlaceId::NONE)).collect()
}

/// Samples over replicas, tokens over cp, heads and wide dims over tp, and parameters stored over fsdp.
fn usual() -> Vec<ShardingHint> {
    let names = |axes: &[&str]| axes.iter().map(|a| Name::new(a)).collect::<Vec<_>>();
    let shard = |dim: &str, axes: &[&str]| ShardingHint::Shard { dim: dim.into(), axes: names(axes), exact: false };
    let fill = |dim: &str| ShardingHint::SequenceParallel { dim: dim.into(), of: "B".into(), axes: names(&["tp"]) };
    vec![
        shard("B", &["dp", "fsdp"]),
        shard("L", &["cp.ring", "cp.ulysses"]),
        shard("M", &["cp.ring", "cp.ulysses"]),
        shard("H", &["tp"]),
        shard("G", &["tp"]),
        shard("F", &["tp"]),
        fill("L"),
        fill("M"),
        ShardingHint::Exchange { axes: names(&["cp.ulysses"]) },
        ShardingHint::Store { what: Stored::Parameters, axes: names(&["fsdp"]) },
        ShardingHint::Store { what: Stored::Optimizer, axes: names(&["dp"]) },
    ]
}

fn dims(module: &Module) -> BTreeSet<Name> {
    let nodes = module.functions.iter().flat_map(|(_, f)| f.nodes.iter());
    let types = nodes.filter_map(|(_, n)| n.ty.element());
    let all: BTreeSet<Name> = types.flat_map(|t| t.dims.iter().map(|d| d.name.clone())).collect();
    if all.is_empty() { [Name::new("B")].into() } else { all }
}
