//! Messages: each send has its receive, on the rank that it names, and each receive its send.

use smallvec::SmallVec;

use super::Check;
use crate::{Affine, Collect, CollectKind, Op, Ranks};

pub fn check<'a>(check: &mut Check<'a>, class: usize, index: usize, collect: &'a Collect) {
    let Some(met) = check.meet(class, index, collect) else { return };
    let (peer, sends) = match &collect.kind {
        CollectKind::Send { peer } => (peer, true),
        CollectKind::Receive { peer } => (peer, false),
        _ => return,
    };
    let mesh = &check.plan.header.mesh;
    let n = mesh.group(&collect.group);
    let mut other: Option<usize> = None;
    for position in 0..n {
        let here = coordinates(check, collect, position);
        if !holds(check, &check.plan.classes[class].ranks, collect, &here) {
            continue;
        }
        let to = peer.at(mesh, &here);
        let Some(to) = usize::try_from(to).ok().filter(|to| *to < n && *to != position) else {
            let what = format!("at position {position} of its group has the peer {to}, which is no other rank of {n}");
            return check.report(class, index, &what);
        };
        let there = coordinates(check, collect, to);
        let found = met.iter().find(|d| holds(check, &check.plan.classes[**d].ranks, collect, &there));
        let Some(&found) = found else { return };
        if *other.get_or_insert(found) != found {
            return check.report(class, index, "has peers in several classes");
        }
        let Some((at, back)) = partner(check, found, collect.id, sends) else {
            let (name, what) = (&check.plan.classes[found].name, if sends { "receive" } else { "send" });
            let what = format!(
                "at position {position} of its group waits for position {to}, of class `{name}`, which has no {what} c{}",
                collect.id
            );
            return check.report(class, index, &what);
        };
        let answers = back.at(mesh, &there);
        if answers != position as i64 {
            let there = check.who(found, at);
            let what = format!(
                "at position {position} of its group waits for position {to}, where {there} waits for {answers}"
            );
            return check.report(class, index, &what);
        }
        let ends = if sends { ((class, index), (found, at)) } else { ((found, at), (class, index)) };
        if let Some(what) = check.differ(ends.0, ends.1) {
            // Said once, by the sender.
            if sends {
                let there = check.who(found, at);
                check.report(class, index, &format!("meets {there}: {what} differ"));
            }
            return;
        }
        check.senders.insert(ends.1, ends.0.0);
    }
}

/// The other end of a message in a class.
fn partner<'a>(check: &Check<'a>, class: usize, id: u32, sends: bool) -> Option<(usize, &'a Affine)> {
    let body = &check.program.bodies[class];
    check.sites[class].get(&id)?.iter().find_map(|&at| match &body.instructions[at].op {
        Op::Collect(c) => match &c.kind {
            CollectKind::Receive { peer } if sends => Some((at, peer)),
            CollectKind::Send { peer } if !sends => Some((at, peer)),
            _ => None,
        },
        _ => None,
    })
}

/// Coordinates of a position in the group; 0 on the axes outside it, of which peers know nothing.
fn coordinates(check: &Check<'_>, collect: &Collect, position: usize) -> SmallVec<[usize; 6]> {
    let mesh = &check.plan.header.mesh;
    let mut out = SmallVec::from_elem(0, mesh.axes.len());
    let mut rest = position;
    for axis in collect.group.iter().rev() {
        if let Some(at) = mesh.position(axis) {
            out[at] = rest % mesh.axes[at].size;
            rest /= mesh.axes[at].size;
        }
    }
    out
}

/// Whether these ranks have the coordinates on the group's axes.
fn holds(check: &Check<'_>, ranks: &Ranks, collect: &Collect, coordinates: &[usize]) -> bool {
    let mesh = &check.plan.header.mesh;
    let mut inside = ranks.at.iter().filter(|(axis, _)| collect.group.contains(axis));
    inside.all(|(axis, at)| mesh.position(axis).is_some_and(|p| coordinates[p] == *at))
}
