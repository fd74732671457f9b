//! Fills waits: where compute would stand still for other ranks, it does what was to be done before and nobody needs yet.
//! The gradient of a weight so stands behind the exchange of an activation's gradient, which leaves the earlier for it.

use plan::{Access, Instruction, Kernel, Op, Slice};
use smallvec::SmallVec;

use super::lanes::is_message;
use super::order::{AHEAD, Place};
use super::update::accesses;

/// Work may be this many times as long as the wait that it fills.
const LONGEST: f64 = 2.0;
/// What is shorter than this share of a wait is left where it is.
const SHORTEST: f64 = 0.1;
/// What follows from work that moves has to move as well: so many instructions, of so much of its time.
const FOLLOWERS: usize = 12;
const WEIGHT: f64 = 0.25;

/// An order of instructions, and what is known of them.
pub struct Order<'a> {
    pub instructions: &'a [Instruction],
    pub kernels: &'a [Kernel],
    /// Number of buffers.
    pub buffers: usize,
    /// By instruction: its place, and the seconds that it takes on its lane.
    pub places: &'a [Place],
    pub seconds: &'a [f64],
    /// By instruction: whether it may be done later.
    pub may_wait: &'a [bool],
    /// Where blocks and units begin.
    pub blocks: &'a [usize],
    pub units: &'a [usize],
}

/// What ranks exchange, on its way.
struct Exchange {
    /// Positions in the order: where it is issued and where compute first needs it to be done.
    issued: usize,
    needed: usize,
    /// The seconds between its end and that; negative where compute waits.
    slack: f64,
}

/// By instruction: the later place where it fills a wait.
///
/// The longest waits are filled first, with the work that stands nearest before the exchange was issued, within its block
/// and the one before, and never from another unit of a pipeline. What hides another exchange stays where it does.
pub fn find(order: &Order<'_>) -> Vec<Option<Place>> {
    let mut found = vec![None; order.instructions.len()];
    let mut sequence: Vec<usize> = (0..order.instructions.len()).collect();
    sequence.sort_by_key(|&i| (order.places[i], i));
    let touches: Vec<Touches> =
        sequence.iter().map(|&i| order.instructions[i].op.touches(|k| accesses(order.kernels, k))).collect();
    let mut exchanges = play(order, &sequence, &touches);
    let mut waits: Vec<usize> = (0..exchanges.len()).filter(|&e| exchanges[e].slack < 0.0).collect();
    if waits.is_empty() {
        return found;
    }
    waits.sort_by(|&a, &b| exchanges[a].slack.total_cmp(&exchanges[b].slack));
    let conflicts = conflicts(&touches, order.buffers);
    for wait in waits {
        let Exchange { issued, needed, slack } = exchanges[wait];
        let (mut left, place) = (-slack, (order.places[sequence[needed]].0, AHEAD));
        for at in (order.begin(&sequence, needed)..issued).rev() {
            let i = sequence[at];
            let seconds = order.seconds[i];
            let fits =
                order.may_wait[i] && found[i].is_none() && seconds <= LONGEST * left && seconds >= SHORTEST * left;
            if !fits || (conflicts[at] <= needed && !order.leaves(&sequence, &touches, &exchanges, at, needed)) {
                continue;
            }
            // Exchanges that it hides.
            let hides = |e: &Exchange| e.issued < at && at < e.needed && e.needed <= needed;
            let until = exchanges.partition_point(|e| e.issued < at);
            let begin = exchanges[..until].partition_point(|e| e.issued < order.begin(&sequence, at));
            if exchanges[begin..until].iter().any(|e| hides(e) && e.slack < seconds) {
                continue;
            }
            exchanges[begin..until].iter_mut().filter(|e| hides(e)).for_each(|e| e.slack -= seconds);
            found[i] = Some(place);
            left -= seconds;
            if left <= SHORTEST * -slack {
                break;
            }
        }
    }
    found
}

type Touches = SmallVec<[(Slice, Access); 8]>;

/// The exchanges in the order in which they are issued, as they would go on lanes beside compute.
fn play(order: &Order<'_>, sequence: &[usize], touches: &[Touches]) -> Vec<Exchange> {
    let mut exchanges: Vec<Exchange> = vec![];
    let mut ends: Vec<f64> = vec![];
    // By group: when its lane is free.
    let mut lanes: Vec<(&[types::Name], f64)> = vec![];
    // By buffer: the exchange that brings it, and the last that sends it.
    let (mut brought, mut sent) = (vec![None; order.buffers], vec![None; order.buffers]);
    let mut now = 0.0_f64;
    for (at, (&i, touches)) in sequence.iter().zip(touches).enumerate() {
        match &order.instructions[i].op {
            op if is_message(op) => {}
            Op::Collect(collect) => {
                let lane = lanes.iter().position(|(group, _)| *group == collect.group).unwrap_or_else(|| {
                    lanes.push((&collect.group, 0.0));
                    lanes.len() - 1
                });
                let arrived = collect.from.iter().filter_map(|s| brought[s.buffer.index()]).map(|e: usize| ends[e]);
                let end = arrived.fold(now.max(lanes[lane].1), f64::max) + order.seconds[i];
                lanes[lane].1 = end;
                collect.from.iter().for_each(|s| sent[s.buffer.index()] = Some(exchanges.len()));
                collect.to.iter().for_each(|s| brought[s.buffer.index()] = Some(exchanges.len()));
                exchanges.push(Exchange { issued: at, needed: usize::MAX, slack: f64::INFINITY });
                ends.push(end);
            }
            _ => {
                for (slice, access) in touches {
                    let id = slice.buffer.index();
                    let sent = if access.writes() { sent[id].take() } else { None };
                    for e in brought[id].take().into_iter().chain(sent) {
                        if exchanges[e].needed == usize::MAX {
                            (exchanges[e].needed, exchanges[e].slack) = (at, now - ends[e]);
                        }
                        now = now.max(ends[e]);
                    }
                }
                now += order.seconds[i];
            }
        }
    }
    exchanges
}

/// By position: the first one behind it that has to stay behind it.
fn conflicts(touches: &[Touches], buffers: usize) -> Vec<usize> {
    // By buffer: the next use and the next write.
    let mut next = vec![(usize::MAX, usize::MAX); buffers];
    let mut conflicts = vec![usize::MAX; touches.len()];
    for (at, touches) in touches.iter().enumerate().rev() {
        for (slice, access) in touches {
            let (used, written) = next[slice.buffer.index()];
            conflicts[at] = conflicts[at].min(if access.writes() { used } else { written });
        }
        for (slice, access) in touches {
            let next = &mut next[slice.buffer.index()];
            *next = (at, if access.writes() { at } else { next.1 });
        }
    }
    conflicts
}

impl Order<'_> {
    /// The first position from which work may come to `needed`.
    fn begin(&self, sequence: &[usize], needed: usize) -> usize {
        let place = self.places[sequence[needed]];
        let block = self.blocks.partition_point(|&b| b <= place.0);
        let before = block.checked_sub(2).map_or(0, |b| self.blocks[b]);
        let unit = self.units.partition_point(|&u| u <= place.0);
        let unit = unit.checked_sub(1).map_or(0, |u| self.units[u]);
        sequence.partition_point(|&i| self.places[i] < (before.max(unit), AHEAD))
    }

    /// Whether the work at a position can go behind `needed` with all that follows from it until there: little work, and
    /// exchanges that nobody waits for in that block.
    fn leaves(
        &self,
        sequence: &[usize],
        touches: &[Touches],
        exchanges: &[Exchange],
        at: usize,
        needed: usize,
    ) -> bool {
        let block = |at: usize| self.blocks.partition_point(|&b| b <= self.places[sequence[at]].0);
        let mut moved: SmallVec<[usize; FOLLOWERS]> = SmallVec::from_slice(&[at]);
        let mut seconds = 0.0;
        for next in at + 1..=needed {
            let follows = |before: &usize| {
                touches[*before].iter().any(|(a, first)| {
                    touches[next].iter().any(|(b, then)| a.buffer == b.buffer && (first.writes() || then.writes()))
                })
            };
            if !moved.iter().any(follows) {
                continue;
            }
            let i = sequence[next];
            let may_follow = match &self.instructions[i].op {
                op if is_message(op) => false,
                Op::Collect(_) => {
                    let e = exchanges.partition_point(|e| e.issued < next);
                    exchanges.get(e).is_none_or(|e| e.needed == usize::MAX || block(e.needed) > block(needed))
                }
                Op::Launch(_) => {
                    seconds += self.seconds[i];
                    seconds <= WEIGHT * self.seconds[sequence[at]]
                }
                Op::Emit { .. } => true,
                _ => false,
            };
            if next == needed || !may_follow || moved.len() > FOLLOWERS {
                return false;
            }
            moved.push(next);
        }
        true
    }
}
