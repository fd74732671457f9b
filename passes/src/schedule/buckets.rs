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
    let needs = needs(&placed, work, kernels, buffers);
    let mut out: Vec<Placed> = Vec::with_capacity(placed.len());
    let mut open: Vec<Bucket> = vec![];
    for (i, (next, need)) in placed.into_iter().zip(needs).enumerate() {
        let is_over = |bucket: &mut Bucket| bucket.until <= next.place || bucket.is_due(i, work[i]);
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
            need,
            seconds: 0.0,
            whys: vec![collect.why.clone()],
            sites: vec![next.instruction.place],
            all: *collect,
        };
        if let Some(at) = open.iter().position(|bucket| bucket.takes(&next)) {
            next = open.remove(at).with(next);
        }
        next.seconds = times.exchange(&next.all);
        if next.is_due(i + 1, work[i]) || times.is_full(&next.all) {
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

/// When somebody needs what a collective makes, or what it reads for something else.
#[derive(Clone, Copy)]
struct Need {
    /// The first instruction to touch it.
    touch: usize,
    /// The work that is done when a kernel waits for it, be it at the end of several collectives.
    work: f64,
}

impl Need {
    const NONE: Self = Self { touch: usize::MAX, work: f64::INFINITY };

    fn first(self, other: Self) -> Self {
        Self { touch: self.touch.min(other.touch), work: self.work.min(other.work) }
    }
}

/// By instruction; nothing for what is no collective.
fn needs(placed: &[Placed], work: &[f64], kernels: &[Kernel], buffers: usize) -> Vec<Need> {
    // By buffer: the next use and the next write.
    let (mut used, mut written) = (vec![Need::NONE; buffers], vec![Need::NONE; buffers]);
    let mut needs = vec![Need::NONE; placed.len()];
    for (i, Placed { instruction, .. }) in placed.iter().enumerate().rev() {
        let mut here = Need { touch: i, work: work[i] };
        if let Op::Collect(collect) = &instruction.op {
            let uses = collect.to.iter().map(|s| used[s.buffer.index()]);
            let writes = collect.from.iter().map(|s| written[s.buffer.index()]);
            needs[i] = uses.chain(writes).fold(Need::NONE, Need::first);
            here.work = needs[i].work;
        }
        for (slice, access) in instruction.op.slices(|k| accesses(kernels, k)) {
            let id = slice.buffer.index();
            used[id] = Need { touch: i, work: used[id].work.min(here.work) };
            if access.writes() {
                (used[id], written[id]) = (here, here);
            }
        }
    }
    needs
}

/// Collectives that travel together.
struct Bucket {
    /// Of the last of them.
    place: Place,
    block: usize,
    until: Place,
    need: Need,
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

    /// Whether it must go before the instruction `next`, when so much work is done.
    fn is_due(&self, next: usize, work: f64) -> bool {
        self.need.touch <= next || work + self.seconds >= self.need.work
    }

    fn with(mut self, other: Bucket) -> Self {
        self.place = other.place;
        self.need = self.need.first(other.need);
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
        let instruction = Instruction { lane, place: site, op: Op::Collect(Collect { why, ..all }.into()) };
        Placed { place, block, until, instruction }
    }
}
