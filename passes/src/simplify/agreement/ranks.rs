//! What an operator computes on every rank of a mesh: the meaning of collectives, rank by rank.

use ir::{Array, Collective, Op, PartialKind};
use types::{Mesh, Name, TensorType};

/// One value of each rank.
pub type Values = Vec<Array>;

/// The result, rounded to its type.
pub fn eval(mesh: &Mesh, op: &Op, args: &[&Values], ty: &TensorType) -> Values {
    let value = |rank: usize| {
        let data = match op.collective() {
            Some(collective) => meet(mesh, &collective, rank, args),
            None => {
                let own: Vec<&Array> = args.iter().map(|of| &of[rank]).collect();
                op.eval(&own, std::slice::from_ref(ty)).remove(0).data
            }
        };
        Array::new(ty.clone(), data.into_iter().map(|v| ty.dtype.round(v)).collect())
    };
    (0..mesh.world()).map(value).collect()
}

/// What `rank` gets in a collective.
fn meet(mesh: &Mesh, collective: &Collective, rank: usize, args: &[&Values]) -> Vec<f64> {
    let of = |rank: usize| &args[0][rank].data;
    // The `i`-th of `n` pieces.
    let piece = |data: &Vec<f64>, i: usize, n: usize| data.chunks(data.len() / n).nth(i).unwrap_or_default().to_vec();
    let reduced = |group: &[usize], kind: PartialKind| {
        let both = |a: f64, b: f64| if kind == PartialKind::Max { a.max(b) } else { a + b };
        let add = |sum: Vec<f64>, &r: &usize| sum.iter().zip(of(r)).map(|(a, b)| both(*a, *b)).collect();
        group[1..].iter().fold(of(group[0]).clone(), add)
    };
    match collective {
        Collective::Coordinate(axis) => vec![position(mesh, std::slice::from_ref(axis), rank) as f64],
        Collective::AllReduce { kind, axes, .. } => reduced(&group(mesh, axes, rank), *kind),
        Collective::AllGather { axes, .. } => group(mesh, axes, rank).into_iter().flat_map(of).copied().collect(),
        Collective::ReduceScatter { axes, .. } => {
            let group = group(mesh, axes, rank);
            piece(&reduced(&group, PartialKind::Sum), position(mesh, axes, rank), group.len())
        }
        Collective::AllToAll { axes, .. } => {
            let (group, own) = (group(mesh, axes, rank), position(mesh, axes, rank));
            group.iter().flat_map(|&r| piece(of(r), own, group.len())).collect()
        }
        Collective::Permute { .. } => panic!("no rule has a permutation"),
    }
}

/// The ranks that differ from `rank` in these axes alone, by position.
fn group(mesh: &Mesh, axes: &[Name], rank: usize) -> Vec<usize> {
    let others = |r: usize| -> Vec<usize> {
        let elsewhere = mesh.axes.iter().zip(mesh.coordinates(r)).filter(|(axis, _)| !axes.contains(&axis.name));
        elsewhere.map(|(_, c)| c).collect()
    };
    let mut group: Vec<usize> = (0..mesh.world()).filter(|&r| others(r) == others(rank)).collect();
    group.sort_by_key(|&r| position(mesh, axes, r));
    group
}

/// The coordinates on these axes as one number, first axis major.
fn position(mesh: &Mesh, axes: &[Name], rank: usize) -> usize {
    let at = mesh.coordinates(rank);
    axes.iter().fold(0, |p, axis| p * mesh.size(axis) + mesh.position(axis).map_or(0, |i| at[i]))
}
