//! No hangs, rank by rank: the theorem of `rendezvous` by its definition, for tests on small worlds.

use std::collections::BTreeMap;

use types::Name;

use crate::{Body, Collect, CollectKind, LaneKind, Op, Plan, Program};

/// One instruction of one rank.
type At = (usize, usize);

/// Draws the graph of all ranks' instructions, and says why it is none of a run that ends. The plan's structure must be
/// right.
pub fn hangs_of_all_ranks(plan: &Plan) -> Option<String> {
    let mut ids = BTreeMap::new();
    for (p, program) in plan.programs.iter().enumerate() {
        for (_, collect, _) in program.bodies.iter().flat_map(collects) {
            if *ids.entry(collect.id).or_insert(p) != p {
                return Some(format!("c{} occurs in two programs", collect.id));
            }
        }
        if let Some(why) = program_hangs(plan, program) {
            return Some(format!("{}: {why}", program.name));
        }
    }
    None
}

fn collects(body: &Body) -> impl Iterator<Item = (usize, &Collect, LaneKind)> {
    body.instructions.iter().enumerate().filter_map(|(i, instruction)| match &instruction.op {
        Op::Collect(c) => Some((i, c.as_ref(), body.lanes[instruction.lane.index()])),
        _ => None,
    })
}

/// Ranks that differ from this one on the group's axes alone, by position.
fn members(plan: &Plan, rank: usize, group: &[Name]) -> Vec<usize> {
    let mesh = &plan.header.mesh;
    let mine = mesh.coordinates(rank);
    let outside = |other: &[usize]| {
        mesh.axes.iter().enumerate().all(|(i, axis)| group.contains(&axis.name) || mine[i] == other[i])
    };
    let mut found: Vec<(Vec<usize>, usize)> = vec![];
    for other in 0..mesh.world() {
        let at = mesh.coordinates(other);
        if outside(&at) {
            found.push((group.iter().filter_map(|a| mesh.position(a).map(|p| at[p])).collect(), other));
        }
    }
    found.sort();
    found.into_iter().map(|(_, rank)| rank).collect()
}

fn program_hangs(plan: &Plan, program: &Program) -> Option<String> {
    let mesh = &plan.header.mesh;
    let world = mesh.world();
    let bodies: Option<Vec<&Body>> =
        (0..world).map(|rank| plan.class_of(rank).and_then(|c| program.bodies.get(c.index()))).collect();
    let bodies = bodies?;
    let number = |kind: &CollectKind, rank: usize| match kind {
        CollectKind::Send { peer } | CollectKind::Receive { peer } | CollectKind::Broadcast { root: peer } => {
            peer.at(mesh, &mesh.coordinates(rank))
        }
        _ => 0,
    };
    // All of one meeting have the same name: its id and the least of its ranks, or its sender.
    let mut meeting: BTreeMap<At, (u32, usize, bool)> = BTreeMap::new();
    let mut wishes = BTreeMap::new();
    for rank in 0..world {
        let mut lane_of: BTreeMap<&[Name], LaneKind> = BTreeMap::new();
        let mut group_of: BTreeMap<String, &[Name]> = BTreeMap::new();
        for (index, c, lane) in collects(bodies[rank]) {
            let group = members(plan, rank, &c.group);
            let position = group.iter().position(|r| *r == rank)?;
            if *group_of.entry(lane.to_string()).or_insert(&c.group) != c.group.as_slice() {
                return Some(format!("rank {rank}: {lane} serves two groups"));
            }
            let same = |other: usize, role: &str| -> Vec<(usize, &Collect, LaneKind)> {
                collects(bodies[other])
                    .filter(|(_, o, _)| o.id == c.id && (role.is_empty() || o.kind.name() == role))
                    .collect()
            };
            let opposite = match c.kind {
                CollectKind::Send { .. } => "receive",
                CollectKind::Receive { .. } => "send",
                _ => "",
            };
            if wishes.entry(c.id).or_insert_with(|| wish(c)) != &wish(c) {
                return Some(format!("c{} stands for two collectives", c.id));
            }
            if opposite.is_empty() {
                if *lane_of.entry(&c.group).or_insert(lane) != lane {
                    return Some(format!("rank {rank}: c{} is on a second lane of its group", c.id));
                }
                for &other in &group {
                    let [(_, o, its_lane)] = same(other, "")[..] else {
                        return Some(format!("rank {rank} waits at c{} for rank {other}", c.id));
                    };
                    let sizes = |c: &Collect| -> (Vec<u64>, Vec<u64>) {
                        (c.from.iter().map(|s| s.bytes).collect(), c.to.iter().map(|s| s.bytes).collect())
                    };
                    let alike = o.kind == c.kind && number(&o.kind, other) == number(&c.kind, rank);
                    if !alike || o.group != c.group || sizes(o) != sizes(c) || its_lane != lane {
                        return Some(format!("ranks {rank} and {other} want different things of c{}", c.id));
                    }
                }
                meeting.insert((rank, index), (c.id, group[0], false));
            } else {
                let peer = usize::try_from(number(&c.kind, rank)).ok().and_then(|p| group.get(p).copied());
                let Some(peer) = peer.filter(|p| *p != rank) else {
                    return Some(format!("rank {rank} has no peer for c{}", c.id));
                };
                let found = same(peer, opposite);
                let [(_, o, its_lane)] = found[..] else {
                    return Some(format!("rank {rank} waits at c{} for rank {peer}", c.id));
                };
                let sends = opposite == "receive";
                let (from, to) = if sends { (&c.from, &o.to) } else { (&o.from, &c.to) };
                let sizes = from.iter().map(|s| s.bytes).eq(to.iter().map(|s| s.bytes));
                if number(&o.kind, peer) != position as i64 || o.group != c.group || !sizes || its_lane != lane {
                    return Some(format!("ranks {rank} and {peer} want different things of c{}", c.id));
                }
                if same(rank, c.kind.name()).len() != 1 || same(rank, "").len() > 2 {
                    return Some(format!("rank {rank} has c{} twice", c.id));
                }
                meeting.insert((rank, index), (c.id, if sends { rank } else { peer }, true));
            }
        }
    }
    cycle(&bodies, &meeting)
}

/// What all collectives of an id have in common: for a message, both of its ends.
fn wish(c: &Collect) -> (Option<CollectKind>, Vec<Name>, Vec<u64>, Vec<u64>) {
    let sizes = |slices: &[crate::Slice]| slices.iter().map(|s| s.bytes).collect::<Vec<_>>();
    match c.kind {
        CollectKind::Send { .. } => (None, c.group.clone(), sizes(&c.from), vec![]),
        CollectKind::Receive { .. } => (None, c.group.clone(), sizes(&c.to), vec![]),
        _ => (Some(c.kind.clone()), c.group.clone(), sizes(&c.from), sizes(&c.to)),
    }
}

/// Takes nodes away that nothing is before, until none is left or a cycle.
fn cycle(bodies: &[&Body], meeting: &BTreeMap<At, (u32, usize, bool)>) -> Option<String> {
    let mut nodes: BTreeMap<(u32, usize, bool), usize> = BTreeMap::new();
    let mut count = 0;
    let mut node_of: Vec<Vec<usize>> = vec![];
    for (rank, body) in bodies.iter().enumerate() {
        let mut list = vec![];
        for index in 0..body.instructions.len() {
            let fresh = count;
            let node = match meeting.get(&(rank, index)) {
                Some(name) => *nodes.entry(*name).or_insert(fresh),
                None => fresh,
            };
            count += usize::from(node == fresh);
            list.push(node);
        }
        node_of.push(list);
    }
    let mut after: Vec<Vec<usize>> = vec![vec![]; count];
    let mut before = vec![0usize; count];
    let mut edge = |from: usize, to: usize| {
        after[from].push(to);
        before[to] += 1;
    };
    for (body, node) in bodies.iter().zip(&node_of) {
        let mut last: Vec<Option<usize>> = vec![None; body.lanes.len()];
        for (index, instruction) in body.instructions.iter().enumerate() {
            if let Some(previous) = last[instruction.lane.index()].replace(index) {
                edge(node[previous], node[index]);
            }
            let Op::Wait { event } = instruction.op else { continue };
            let record = body.instructions.iter().position(|i| i.op == Op::Record { event });
            // One that nothing records is the race check's to find.
            if let Some(record) = record {
                edge(node[record], node[index]);
            }
        }
    }
    let mut free: Vec<usize> = (0..count).filter(|n| before[*n] == 0).collect();
    let mut taken = 0;
    while let Some(node) = free.pop() {
        taken += 1;
        for &next in &after[node] {
            before[next] -= 1;
            if before[next] == 0 {
                free.push(next);
            }
        }
    }
    (taken < count).then(|| format!("{} instructions wait for one another", count - taken))
}
