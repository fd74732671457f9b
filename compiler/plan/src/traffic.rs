//! What a rank sends to others in one run of a program, by group of mesh axes and kind of collective.

use serde::Serialize;
use types::{Mesh, Name};

use crate::{Body, Collect, CollectKind, Op, Plan};

/// The collectives of one kind over one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// The mesh axes that span the group.
    pub group: Vec<Name>,
    /// Ranks in the group.
    pub ranks: u64,
    /// `all_gather`, `reduce_scatter`, ...: see [`CollectKind::name`].
    pub kind: &'static str,
    /// Instructions.
    pub count: u64,
    /// Bytes that each rank sends, by the bandwidth-optimal algorithm: see [`sent`].
    pub bytes: u64,
}

/// One entry for each group and kind that occurs, groups and kinds in the order of their first instruction.
pub fn traffic(plan: &Plan, body: &Body) -> Vec<Traffic> {
    let mesh = &plan.header.mesh;
    let mut groups: Vec<Vec<Traffic>> = vec![];
    for instruction in &body.instructions {
        let Op::Collect(collect) = &instruction.op else { continue };
        let bytes = sent(mesh, collect);
        let group = match groups.iter().position(|g| g[0].group == collect.group) {
            Some(at) => &mut groups[at],
            None => {
                groups.push(vec![]);
                groups.last_mut().expect("just pushed")
            }
        };
        let kind = collect.kind.name();
        match group.iter_mut().find(|t| t.kind == kind) {
            Some(known) => {
                known.count += 1;
                known.bytes = known.bytes.saturating_add(bytes);
            }
            None => {
                let ranks = mesh.group(&collect.group) as u64;
                group.push(Traffic { group: collect.group.clone(), ranks, kind, count: 1, bytes });
            }
        }
    }
    groups.into_iter().flatten().collect()
}

/// Bytes that one rank of a group of n sends in a collective, rounded up: of the whole tensor, (n-1)/n for all_gather,
/// reduce_scatter, all_to_all and broadcast (on average over the ranks), 2(n-1)/n for all_reduce; the tensor itself for
/// permute, unless it comes back to the same rank, and for send; nothing for receive.
pub fn sent(mesh: &Mesh, collect: &Collect) -> u64 {
    let n = mesh.group(&collect.group) as u64;
    let sum = |slices: &[crate::Slice]| slices.iter().fold(0u64, |sum, s| sum.saturating_add(s.bytes));
    let share = |bytes: u64, of: u64| (u128::from(bytes) * u128::from(of)).div_ceil(u128::from(n.max(1)));
    let others = n.saturating_sub(1);
    let bytes = match &collect.kind {
        CollectKind::AllReduce(_) => share(sum(&collect.from), 2 * others),
        CollectKind::AllGather => share(sum(&collect.to), others),
        CollectKind::ReduceScatter(_) | CollectKind::AllToAll | CollectKind::Broadcast { .. } => {
            share(sum(&collect.from), others)
        }
        CollectKind::Permute { shifts } => {
            let moved = |(shift, _): &(&i64, &crate::Slice)| shift.rem_euclid(n.max(1) as i64) != 0;
            shifts.iter().zip(&collect.from).filter(moved).map(|(_, s)| u128::from(s.bytes)).sum()
        }
        CollectKind::Send { .. } => sum(&collect.from).into(),
        CollectKind::Receive { .. } => 0,
    };
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Affine, BufferId, Reduce, ReduceKind, Slice};

    #[test]
    fn volumes_are_those_of_the_best_algorithms() {
        let mesh = Mesh::new([("tp", 4)]).expect("a mesh");
        let check = |kind: CollectKind, (from, to): (u64, u64), want: u64| {
            let slice = |bytes| vec![Slice::whole(BufferId(0), bytes)];
            let group = vec!["tp".into()];
            let collect = Collect { id: 0, kind, group, from: slice(from), to: slice(to), why: "".into() };
            assert_eq!(sent(&mesh, &collect), want, "{:?}", collect.kind);
        };
        let reduce = Reduce { kind: ReduceKind::Sum, dtype: types::DType::F32 };
        check(CollectKind::AllReduce(reduce), (64, 64), 96);
        check(CollectKind::AllReduce(reduce), (4, 4), 6);
        check(CollectKind::AllGather, (16, 64), 48);
        check(CollectKind::ReduceScatter(reduce), (64, 16), 48);
        check(CollectKind::AllToAll, (64, 64), 48);
        check(CollectKind::Permute { shifts: vec![-1] }, (64, 64), 64);
        check(CollectKind::Permute { shifts: vec![4] }, (64, 64), 0);
        check(CollectKind::Send { peer: Affine::constant(1) }, (64, 0), 64);
        check(CollectKind::Receive { peer: Affine::constant(0) }, (0, 64), 0);
    }
}
