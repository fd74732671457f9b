//! The time of a collective: rounds of messages and bytes over the links that its group spans.
//!
//! Ranks stand on servers in their order. A group with ranks on several servers works in two levels: first among those of
//! one server, then each rank with its like on the other servers, which is what HCCL and NCCL do.

use plan::{Collect, CollectKind, Slice};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use types::{Mesh, Name};

use crate::{Link, Machine};

/// What the time of a collective depends on.
#[derive(Clone, Debug)]
pub struct Exchange<'a> {
    pub kind: &'a CollectKind,
    /// The mesh axes that span the group.
    pub group: &'a [Name],
    /// Bytes of each tensor that goes out, and of each that comes in.
    pub from: SmallVec<[u64; 4]>,
    pub to: SmallVec<[u64; 4]>,
}

impl<'a> From<&'a Collect> for Exchange<'a> {
    fn from(collect: &'a Collect) -> Self {
        let bytes = |slices: &[Slice]| slices.iter().map(|slice| slice.bytes).collect();
        let (from, to) = (bytes(&collect.from), bytes(&collect.to));
        Self { kind: &collect.kind, group: &collect.group, from, to }
    }
}

/// Placements of the groups of a mesh on a machine, each found once.
#[derive(Clone)]
pub struct Groups<'a> {
    machine: &'a Machine,
    mesh: &'a Mesh,
    /// By axes and by the rank whose group it is.
    known: FxHashMap<(Vec<Name>, usize), Placement>,
}

/// Where the ranks of a group are: the server of each, in the order of positions.
#[derive(Clone, Debug)]
struct Placement {
    servers: Vec<usize>,
    /// The most ranks of the group on one server.
    inside: usize,
    /// Servers that hold ranks of the group.
    outside: usize,
}

impl<'a> Groups<'a> {
    pub fn new(machine: &'a Machine, mesh: &'a Mesh) -> Self {
        Self { machine, mesh, known: FxHashMap::default() }
    }

    /// Seconds from when all have come until all go on, in the group of `rank`.
    pub fn seconds<'e>(&mut self, exchange: impl Into<Exchange<'e>>, rank: usize) -> f64 {
        let exchange = exchange.into();
        let (machine, mesh) = (self.machine, self.mesh);
        let key = (exchange.group.to_vec(), rank);
        let placement = self.known.entry(key).or_insert_with(|| place(machine, mesh, exchange.group, rank));
        seconds(machine, placement, &exchange)
    }
}

fn place(machine: &Machine, mesh: &Mesh, group: &[Name], rank: usize) -> Placement {
    let per_server = machine.ranks_per_server(mesh.world()).max(1);
    let mut coordinates = mesh.coordinates(rank);
    let servers: Vec<usize> = (0..mesh.group(group))
        .map(|position| {
            let mut rest = position;
            for axis in group.iter().rev() {
                if let Some(at) = mesh.position(axis) {
                    coordinates[at] = rest % mesh.axes[at].size;
                    rest /= mesh.axes[at].size;
                }
            }
            mesh.rank(&coordinates) / per_server
        })
        .collect();
    let mut sorted = servers.clone();
    sorted.sort_unstable();
    let inside = sorted.chunk_by(|a, b| a == b).map(<[usize]>::len).max().unwrap_or(1);
    sorted.dedup();
    Placement { servers, inside, outside: sorted.len().max(1) }
}

fn seconds(machine: &Machine, at: &Placement, exchange: &Exchange<'_>) -> f64 {
    let n = at.servers.len();
    if n < 2 {
        return 0.0;
    }
    let whole = |each: &[u64]| each.iter().map(|bytes| *bytes as f64).sum::<f64>();
    let (from, to) = (whole(&exchange.from), whole(&exchange.to));
    match exchange.kind {
        CollectKind::AllGather => passes(machine, at, to, 1.0),
        CollectKind::ReduceScatter(_) => passes(machine, at, from, 1.0),
        CollectKind::AllReduce(_) => passes(machine, at, from, 2.0),
        CollectKind::Broadcast { .. } => passes(machine, at, from.max(to), 1.0),
        CollectKind::AllToAll => {
            let share = |ranks: usize| from * ranks as f64 / n as f64;
            let near = transfer(machine.link(false), share(at.inside - 1), at.inside - 1);
            near.max(transfer(machine.link(true), share(n - at.inside), n - at.inside))
        }
        CollectKind::Permute { shifts } => {
            let sent = shifts.iter().zip(&exchange.from).filter(|(shift, _)| shift.rem_euclid(n as i64) != 0);
            let crosses = |shift: i64| {
                let peer = |i: usize| (i as i64 + shift).rem_euclid(n as i64) as usize;
                (0..n).any(|i| at.servers[i] != at.servers[peer(i)])
            };
            let (far, near): (Vec<_>, Vec<_>) =
                sent.map(|(s, bytes)| (crosses(*s), *bytes as f64)).partition(|(far, _)| *far);
            let bytes = |of: &[(bool, f64)]| of.iter().map(|(_, bytes)| bytes).sum::<f64>();
            let inside = transfer(machine.link(false), bytes(&near), near.len());
            inside.max(transfer(machine.link(true), bytes(&far), far.len()))
        }
        CollectKind::Send { .. } | CollectKind::Receive { .. } => {
            transfer(machine.link(at.outside > 1), from.max(to), 1)
        }
    }
}

/// Gathers or reductions of a tensor of `bytes`, `times` times over: inside the servers, then between them.
fn passes(machine: &Machine, at: &Placement, bytes: f64, times: f64) -> f64 {
    let (m, s) = (at.inside as f64, at.outside as f64);
    let inside = transfer(machine.link(false), bytes * (m - 1.0) / m, at.inside - 1);
    // Each of the m ranks of a server carries its part around a ring of servers.
    let rounds = s - 1.0;
    let around = rounds * transfer(machine.link(true), bytes / (m * s), 1);
    times * (inside + around)
}

/// Bytes that one rank sends to so many peers at once.
fn transfer(link: &Link, bytes: f64, peers: usize) -> f64 {
    if peers == 0 {
        return 0.0;
    }
    let rate = link.gb_per_s_per_peer.map_or(link.gb_per_s, |each| link.gb_per_s.min(each * peers as f64));
    link.latency_us * 1e-6 + bytes / (rate * 1e9 * link.efficiency)
}

#[cfg(test)]
mod tests {
    use plan::{Affine, BufferId, Reduce, ReduceKind};
    use types::DType;

    use super::*;
    use crate::built_in;

    /// Milliseconds of a collective of 1 GB on 910B3, rank 0's group.
    fn milliseconds(mesh: &[(&str, usize)], group: &[&str], kind: CollectKind) -> f64 {
        let machine = built_in("ascend-910b3").expect("a machine");
        let mesh = Mesh::new(mesh.iter().copied()).expect("a mesh");
        let n = group.iter().map(|a| mesh.size(a)).product::<usize>() as u64;
        let whole = 1_000_000_000;
        let (from, to) = match kind {
            CollectKind::AllGather => (whole / n, whole),
            CollectKind::ReduceScatter(_) => (whole, whole / n),
            _ => (whole, whole),
        };
        let slices = |bytes| vec![Slice::whole(BufferId(0), bytes)];
        let group = group.iter().map(|a| Name::from(*a)).collect();
        let collect = Collect { id: 0, kind, group, from: slices(from), to: slices(to), why: "".into() };
        Groups::new(&machine, &mesh).seconds(&collect, 0) * 1e3
    }

    const SUM: Reduce = Reduce { kind: ReduceKind::Sum, dtype: DType::F32 };

    #[test]
    fn a_full_mesh_gathers_over_all_its_links_at_once() {
        let (four, eight) = ([("fsdp", 4)], [("fsdp", 8)]);
        // A quarter from each of three peers, and an eighth from each of seven: 28 GB/s a link, of which 80 % are reached.
        assert!((milliseconds(&four, &["fsdp"], CollectKind::AllGather) - (0.25e3 / 22.4 + 0.02)).abs() < 1e-6);
        assert!((milliseconds(&eight, &["fsdp"], CollectKind::AllGather) - (0.125e3 / 22.4 + 0.02)).abs() < 1e-6);
        let (gather, reduce) = (CollectKind::AllGather, CollectKind::AllReduce(SUM));
        assert!((milliseconds(&four, &["fsdp"], reduce) / milliseconds(&four, &["fsdp"], gather) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn groups_that_span_servers_pay_for_the_network_and_minor_axes_stay_inside() {
        let mesh = [("dp", 4), ("tp", 8)];
        let near = milliseconds(&mesh, &["tp"], CollectKind::ReduceScatter(SUM));
        let far = milliseconds(&mesh, &["dp"], CollectKind::ReduceScatter(SUM));
        let both = milliseconds(&mesh, &["dp", "tp"], CollectKind::ReduceScatter(SUM));
        assert!(near < both && both < far, "{near} {both} {far}");
    }

    #[test]
    fn a_ring_uses_one_link_and_two_directions_two() {
        let mesh = [("cp", 8)];
        let one = milliseconds(&mesh, &["cp"], CollectKind::Permute { shifts: vec![1] });
        let exchange = milliseconds(&mesh, &["cp"], CollectKind::AllToAll);
        assert!(one > 5.0 * exchange, "{one} {exchange}");
        assert!(milliseconds(&mesh, &["cp"], CollectKind::Permute { shifts: vec![8] }) == 0.0);
        let sent = milliseconds(&mesh, &["cp"], CollectKind::Send { peer: Affine::constant(1) });
        assert!((sent - one).abs() < 1e-9);
        assert!(milliseconds(&[("cp", 1)], &["cp"], CollectKind::AllGather) == 0.0);
    }
}
