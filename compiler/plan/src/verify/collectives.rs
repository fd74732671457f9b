//! Collectives, each by itself: its group, its sizes and its peers fit the mesh.
//!
//! With n ranks in the group:
//! - the group's axes are the mesh's, each named once;
//! - every tensor that goes out has a place to come in: as many `from` as `to` (a send has no `to`, a receive no `from`);
//! - all_reduce, broadcast and permute keep sizes; all_gather gives n times what it takes, reduce_scatter an n-th, and
//!   all_to_all as much, in n equal pieces;
//! - what is reduced has whole elements on each rank;
//! - a permute has one shift for each tensor;
//! - the root of a broadcast is a position in the group, the same for all its ranks: no function of the group's axes;
//! - the peer of a send or receive is a function of the group's axes alone.
//!
//! That `from` and `to` do not overlap is the race check's business.

use types::{DType, Mesh};

use crate::{Affine, Collect, CollectKind, Reduce};

/// What is wrong with a collective, if anything is.
pub fn fault(mesh: &Mesh, collect: &Collect) -> Option<String> {
    for (i, axis) in collect.group.iter().enumerate() {
        if mesh.position(axis).is_none() {
            return Some(format!("collects over `{axis}`, which the mesh does not have"));
        }
        if collect.group[..i].contains(axis) {
            return Some(format!("names `{axis}` twice in its group"));
        }
    }
    let n = mesh.group(&collect.group) as u64;
    let (from, to) = (collect.from.len(), collect.to.len());
    let fits = match &collect.kind {
        CollectKind::Send { .. } => to == 0,
        CollectKind::Receive { .. } => from == 0,
        _ => from == to,
    };
    if !fits {
        return Some(format!("takes {from} tensors and gives {to}"));
    }
    let size = collect.from.iter().zip(&collect.to).enumerate().find_map(|(i, (from, to))| {
        let (from, to) = (from.bytes, to.bytes);
        let wrong = match &collect.kind {
            CollectKind::AllGather => from.checked_mul(n) != Some(to),
            CollectKind::ReduceScatter(_) => to.checked_mul(n) != Some(from),
            CollectKind::AllToAll => from != to || from % n != 0,
            _ => from != to,
        };
        let rule = match &collect.kind {
            CollectKind::AllGather => format!("an all_gather over {n} ranks gives {n} times what it takes"),
            CollectKind::ReduceScatter(_) => {
                format!("a reduce_scatter over {n} ranks gives one {n}th of what it takes")
            }
            CollectKind::AllToAll => format!("an all_to_all over {n} ranks gives what it takes, in {n} equal pieces"),
            kind => format!("{} gives as much as it takes", kind.name()),
        };
        wrong.then(|| format!("takes {from} bytes and gives {to} as tensor {i}: {rule}"))
    });
    size.or_else(|| match &collect.kind {
        CollectKind::AllReduce(reduce) | CollectKind::ReduceScatter(reduce) => elements(collect, reduce),
        CollectKind::Permute { shifts } if shifts.len() != from => {
            Some(format!("has {} shifts for {from} tensors", shifts.len()))
        }
        CollectKind::Broadcast { root } => root_fault(mesh, collect, root, n),
        CollectKind::Send { peer } | CollectKind::Receive { peer } => {
            let strange = peer.terms.iter().find(|t| !collect.group.contains(&t.axis))?;
            Some(format!("has a peer that depends on `{}`, which is not in its group", strange.axis))
        }
        _ => None,
    })
}

fn elements(collect: &Collect, reduce: &Reduce) -> Option<String> {
    if reduce.dtype == DType::Work {
        return Some("reduces `work`, which is no type of a plan".into());
    }
    let each = reduce.dtype.bytes() as u64;
    let (i, slice) = collect.to.iter().enumerate().find(|(_, s)| s.bytes % each != 0)?;
    Some(format!("reduces tensor {i} in pieces of {} bytes, which are no whole {}", slice.bytes, reduce.dtype))
}

fn root_fault(mesh: &Mesh, collect: &Collect, root: &Affine, n: u64) -> Option<String> {
    if let Some(term) = root.terms.iter().find(|t| collect.group.contains(&t.axis)) {
        return Some(format!("has a root that depends on `{}`, so that its ranks differ on it", term.axis));
    }
    let (least, most) = range(mesh, root);
    let inside = |at: i64| u64::try_from(at).is_ok_and(|at| at < n);
    (!inside(least) || !inside(most))
        .then(|| format!("has a root between {least} and {most}, and its group positions 0 to {}", n.saturating_sub(1)))
}

/// The least and the greatest value over all ranks.
fn range(mesh: &Mesh, affine: &Affine) -> (i64, i64) {
    let (mut least, mut most) = (affine.base, affine.base);
    for term in &affine.terms {
        let reach = term.scale.saturating_mul(mesh.size(&term.axis) as i64 - 1);
        least = least.saturating_add(reach.min(0));
        most = most.saturating_add(reach.max(0));
    }
    let bound = |value: i64| value.max(affine.least).min(affine.most);
    (bound(least), bound(most))
}
