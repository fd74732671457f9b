//! Buckets: small collectives of one kind, group and block travel as one instruction, so that they pay for one latency.

use plan::{Collect, CollectKind, Instruction, Kernel, LaneId, Op, PlaceId};
use types::Name;

use super::order::Place;
use super::places::Recorder;
use super::times::Times;
use super::update::accesses;

/// An instruction with its place in the new order.
pub struct Placed {
    pub place: Place,
    /// The block that it belongs to, wherever it is issued.
    pub block: usize,
    /// A collective may wait for others up to here.
    pub until: Place,
    pub instruction: Instruction,
}

/// Instructions in their new order, with fewer collectives; `work` says how much is done before each.
///
/// A collective waits for others until its block ends, unless it is large enough to go alone, or the work that is left
/// before somebody needs it would no longer hide it.
pub fn join(
    placed: Vec<Placed>,
    work: &[f64],
    kernels: &[Kernel],
    buffers: usize,
    times: &mut Times<'_>,
    places: &mut Recorder<'_>,
) -> Vec<Placed> {
    let needed = needed(&placed, kernels, buffers);
    let mut out: Vec<Placed> = Vec::with_capacity(placed.len());
    let mut open: Vec<Bucket> = vec![];
    for ((next, needed), now) in placed.into_iter().zip(needed).zip(work) {
        let is_over = |bucket: &mut Bucket| bucket.until <= next.place || now + bucket.seconds >= bucket.deadline;
        out.extend(open.extract_if(.., is_over).map(|bucket| bucket.issue(places)));
        let collect = match next.instruction.op {
            Op::Collect(collect) if joins(&collect.kind) => collect,
            _ => {
                out.push(next);
                continue;
            }
        };
        let mut next = Bucket {
            place: next.place,
            block: next.block,
            until: next.until,
            deadline: needed.map_or(f64::INFINITY, |at| work[at]),
            seconds: 0.0,
            whys: vec![collect.why.clone()],
            sites: vec![next.instruction.place],
            all: collect,
        };
        if let Some(at) = open.iter().position(|bucket| bucket.takes(&next)) {
            next = open.remove(at).with(next);
        }
        next.seconds = times.exchange(&next.all);
        if now + next.seconds >= next.deadline || times.is_full(&next.all) {
            out.push(next.issue(places));
        } else {
            open.push(next);
        }
    }
    out.extend(open.into_iter().map(|bucket| bucket.issue(places)));
    out
}

const fn joins(kind: &CollectKind) -> bool {
    matches!(
        kind,
        CollectKind::AllReduce(_) | CollectKind::AllGather | CollectKind::ReduceScatter(_) | CollectKind::AllToAll
    )
}

/// By instruction: if it is a collective, the first one that touches its results or overwrites its operands.
fn needed(placed: &[Placed], kernels: &[Kernel], buffers: usize) -> Vec<Option<usize>> {
    // By buffer: the next use and the next write.
    let (mut used, mut written) = (vec![None; buffers], vec![None; buffers]);
    let mut needed = vec![None; placed.len()];
    for (i, Placed { instruction, .. }) in placed.iter().enumerate().rev() {
        if let Op::Collect(collect) = &instruction.op {
            let uses = collect.to.iter().filter_map(|s| used[s.buffer.index()]);
            let writes = collect.from.iter().filter_map(|s| written[s.buffer.index()]);
            needed[i] = uses.chain(writes).min();
        }
        for (slice, access) in instruction.op.touches(|k| accesses(kernels, k)) {
            used[slice.buffer.index()] = Some(i);
            if access.writes() {
                written[slice.buffer.index()] = Some(i);
            }
        }
    }
    needed
}

/// Collectives that travel together.
struct Bucket {
    /// Of the last of them.
    place: Place,
    block: usize,
    until: Place,
    /// The work that is done when somebody needs one of them.
    deadline: f64,
    /// What all of them take.
    seconds: f64,
    all: Collect,
    whys: Vec<Name>,
    sites: Vec<PlaceId>,
}

impl Bucket {
    fn takes(&self, other: &Bucket) -> bool {
        let alike = self.all.kind == other.all.kind && self.all.group == other.all.group;
        alike && self.block == other.block && self.until == other.until
    }

    fn with(mut self, other: Bucket) -> Self {
        self.place = other.place;
        self.deadline = self.deadline.min(other.deadline);
        self.all.from.extend(other.all.from);
        self.all.to.extend(other.all.to);
        self.sites.extend(other.sites);
        for why in other.whys {
            if !self.whys.contains(&why) {
                self.whys.push(why);
            }
        }
        self
    }

    fn issue(self, places: &mut Recorder<'_>) -> Placed {
        let Self { place, block, until, all, whys, sites, .. } = self;
        let why = whys.iter().map(Name::as_str).collect::<Vec<_>>().join("; ").into();
        let (lane, site) = (LaneId::new(0), places.common(&sites));
        let instruction = Instruction { lane, place: site, op: Op::Collect(Collect { why, ..all }) };
        Placed { place, block, until, instruction }
    }
}
