//! Fills waits: where compute would stand still for other ranks, it does earlier work that nobody needs yet. So the gradient
//! of a weight moves behind the exchange of an activation's gradient, which is issued the earlier for it.

use cost::Lane;
use plan::Op;
use program::{DefUse, Instruction, is_message};
use smallvec::SmallVec;

use super::{AHEAD, Place};

/// The longest work that is moved, as a multiple of the wait that it fills.
const LONGEST: f64 = 2.0;
/// The shortest work that is moved, as a share of the wait.
const SHORTEST: f64 = 0.1;
/// Instructions that depend on moved work move with it: at most so many, and at most so much of its time.
const FOLLOWERS: usize = 12;
const WEIGHT: f64 = 0.25;
/// A wait looks at so much work, and work at so many exchanges, before it: a block is the whole program where there are none.
const NEAREST: usize = 512;

/// An order of instructions, and facts about them.
pub struct Order<'a> {
    pub instructions: &'a [Instruction],
    pub def_use: &'a DefUse,
    /// By instruction: its place, and the seconds that it takes on its lane.
    pub places: &'a [Place],
    pub seconds: &'a [f64],
    /// By instruction: whether it may be done later.
    pub may_wait: &'a [bool],
    /// Where blocks and units begin.
    pub blocks: &'a [usize],
    pub units: &'a [usize],
}

/// A collective in flight.
struct Exchange {
    /// Positions in the order: where it is issued and where compute first needs it to be done.
    issued: usize,
    needed: usize,
    /// The seconds between its end and that; negative where compute waits.
    slack: f64,
}

/// By instruction: the later place where it fills a wait.
///
/// The longest waits are filled first, with the nearest work before the collective is issued, from its block and the one
/// before, and never from another unit of a pipeline. Work that hides another collective stays.
pub fn find(order: &Order<'_>) -> Vec<Option<Place>> {
    let mut found = vec![None; order.instructions.len()];
    let mut sequence: Vec<usize> = (0..order.instructions.len()).collect();
    sequence.sort_by_key(|&i| (order.places[i], i));
    let mut exchanges = play(order, &sequence);
    let mut waits: Vec<usize> = (0..exchanges.len()).filter(|&e| exchanges[e].slack < 0.0).collect();
    if waits.is_empty() {
        return found;
    }
    waits.sort_by(|&a, &b| exchanges[a].slack.total_cmp(&exchanges[b].slack));
    let conflicts = conflicts(order, &sequence);
    // Positions of work that may be done later.
    let work: Vec<usize> = (0..sequence.len()).filter(|&at| order.may_wait[sequence[at]]).collect();
    for wait in waits {
        let Exchange { issued, needed, slack } = exchanges[wait];
        let (mut left, place) = (-slack, (order.places[sequence[needed]].0, AHEAD));
        let begin = order.begin(&sequence, needed);
        if issued <= begin {
            continue;
        }
        let around = work.partition_point(|&at| at < begin)..work.partition_point(|&at| at < issued);
        let before = exchanges.partition_point(|e| e.issued < begin);
        for &at in work[around].iter().rev().take(NEAREST) {
            let i = sequence[at];
            let seconds = order.seconds[i];
            let fits = seconds <= LONGEST * left && seconds >= SHORTEST * left && found[i].is_none();
            if !fits || !order.leaves(&sequence, &exchanges, (at, conflicts[at]), needed) {
                continue;
            }
            // Exchanges that it hides.
            let hides = |e: &Exchange| at < e.needed && e.needed <= needed;
            let until = exchanges.partition_point(|e| e.issued < at);
            let hidden = &mut exchanges[before.max(until.saturating_sub(NEAREST)).min(until)..until];
            if hidden.iter().any(|e| hides(e) && e.slack < seconds) {
                continue;
            }
            hidden.iter_mut().filter(|e| hides(e)).for_each(|e| e.slack -= seconds);
            found[i] = Some(place);
            left -= seconds;
            if left <= SHORTEST * -slack {
                break;
            }
        }
    }
    found
}

/// The collectives in the order in which they are issued, played on lanes beside compute.
fn play(order: &Order<'_>, sequence: &[usize]) -> Vec<Exchange> {
    let mut exchanges: Vec<Exchange> = vec![];
    let mut ends: Vec<f64> = vec![];
    // By group.
    let mut lanes: Vec<(&[types::Name], Lane)> = vec![];
    // By buffer: the exchange that brings it, and the last that sends it.
    let (mut brought, mut sent) = (vec![None; order.def_use.buffers()], vec![None; order.def_use.buffers()]);
    let mut compute = Lane::default();
    for (at, &i) in sequence.iter().enumerate() {
        match &order.instructions[i].op {
            op if is_message(op) => {}
            Op::Collect(collect) => {
                let lane = lanes.iter().position(|(group, _)| *group == collect.group).unwrap_or_else(|| {
                    lanes.push((&collect.group, Lane::default()));
                    lanes.len() - 1
                });
                let arrived = collect.from.iter().filter_map(|s| brought[s.buffer.index()]).map(|e: usize| ends[e]);
                let end = lanes[lane].1.run(arrived.fold(compute.free, f64::max), order.seconds[i]).end;
                collect.from.iter().for_each(|s| sent[s.buffer.index()] = Some(exchanges.len()));
                collect.to.iter().for_each(|s| brought[s.buffer.index()] = Some(exchanges.len()));
                exchanges.push(Exchange { issued: at, needed: usize::MAX, slack: f64::INFINITY });
                ends.push(end);
            }
            _ => {
                for (slice, access) in order.def_use.touches(i) {
                    let id = slice.buffer.index();
                    let sent = if access.writes() { sent[id].take() } else { None };
                    for e in brought[id].take().into_iter().chain(sent) {
                        if exchanges[e].needed == usize::MAX {
                            (exchanges[e].needed, exchanges[e].slack) = (at, compute.free - ends[e]);
                        }
                        compute.run(ends[e], 0.0);
                    }
                }
                compute.run(0.0, order.seconds[i]);
            }
        }
    }
    exchanges
}

/// By position: the first later one that depends on it or overwrites its operands.
fn conflicts(order: &Order<'_>, sequence: &[usize]) -> Vec<usize> {
    // By buffer: the next use and the next write.
    let mut next = vec![(usize::MAX, usize::MAX); order.def_use.buffers()];
    let mut conflicts = vec![usize::MAX; sequence.len()];
    for (at, conflict) in conflicts.iter_mut().enumerate().rev() {
        let touches = order.def_use.touches(sequence[at]);
        for (slice, access) in touches {
            let (used, written) = next[slice.buffer.index()];
            *conflict = (*conflict).min(if access.writes() { used } else { written });
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
    /// exchanges that nobody waits for in that block. What follows begins at `conflict`.
    fn leaves(
        &self,
        sequence: &[usize],
        exchanges: &[Exchange],
        (at, conflict): (usize, usize),
        needed: usize,
    ) -> bool {
        let block = |at: usize| self.blocks.partition_point(|&b| b <= self.places[sequence[at]].0);
        let mut moved: SmallVec<[usize; FOLLOWERS]> = SmallVec::from_slice(&[at]);
        let mut seconds = 0.0;
        for next in conflict..=needed {
            let here = self.def_use.touches(sequence[next]);
            let follows = |before: &usize| {
                self.def_use.touches(sequence[*before]).iter().any(|(a, access)| {
                    here.iter().any(|(b, then)| a.buffer == b.buffer && (access.writes() || then.writes()))
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

#[cfg(test)]
mod tests {
    use super::super::BEHIND;
    use super::*;

    /// An instruction: what it reads, what it writes, its seconds, and whether ranks exchange it.
    type Line = (&'static [u32], u32, f64, bool);

    fn later(lines: &[Line], blocks: &[usize], units: &[usize]) -> Vec<Option<Place>> {
        let ids = |of: &[u32]| of.iter().map(|id| format!(" b{id}")).collect::<String>();
        let mut text = String::from("ranks of [tp:2] align 64\n");
        for n in 0..4 {
            text.push_str(&format!("kernel k{n} \"k\" args {}w flops 1\n", "r".repeat(n)));
        }
        text.push_str("program \"p\" rank 0\n");
        (0..12).for_each(|id| text.push_str(&format!("buffer b{id} activation \"\" 4 bytes\n")));
        for (i, (from, to, _, exchanges)) in lines.iter().enumerate() {
            let (from, to) = (ids(from), ids(&[*to]));
            match exchanges {
                true => text.push_str(&format!("c{i} all_gather over tp({from} ->{to})\n")),
                false => text.push_str(&format!("k{}({from} ->{to})\n", from.matches('b').count())),
            }
        }
        let module = program::parse(&text).expect(&text);
        let program = &module.programs[0].ranks[0];
        find(&Order {
            instructions: &program.instructions,
            def_use: &program.def_use(),
            places: &(0..lines.len()).map(|i| (i, BEHIND)).collect::<Vec<_>>(),
            seconds: &lines.iter().map(|line| line.2).collect::<Vec<_>>(),
            may_wait: &lines.iter().map(|line| !line.3).collect::<Vec<_>>(),
            blocks,
            units,
        })
    }

    fn moved(lines: &[Line], blocks: &[usize], units: &[usize]) -> Vec<(usize, Place)> {
        let later = later(lines, blocks, units);
        later.into_iter().enumerate().filter_map(|(i, place)| Some((i, place?))).collect()
    }

    #[test]
    fn the_gradient_of_a_weight_goes_behind_the_exchange_of_an_activations() {
        let weight: Line = (&[0, 1], 2, 3.0, false);
        let rest: [Line; 3] = [(&[0], 3, 1.0, false), (&[3], 4, 2.0, true), (&[4], 5, 1.0, false)];
        let [activation, exchange, user] = rest;
        assert_eq!(moved(&[weight, activation, exchange, user], &[0], &[]), [(0, (3, AHEAD))]);
        // Behind the exchange it hides it already.
        assert_eq!(moved(&[activation, exchange, weight, user], &[0], &[]), []);
        // What the exchange leads to is never put off.
        assert_eq!(moved(&rest, &[0], &[]), []);
        // Where somebody works with it before, it stays.
        let reader: Line = (&[2], 6, 5.0, false);
        assert_eq!(moved(&[weight, reader, activation, exchange, user], &[0], &[]), []);
        // Light work that follows goes with it.
        let light: Line = (&[2], 6, 0.1, false);
        assert_eq!(moved(&[weight, light, activation, exchange, user], &[0], &[]), [(0, (4, AHEAD))]);
    }

    #[test]
    fn work_comes_from_the_block_before_at_the_farthest_and_from_no_other_unit() {
        let weight: Line = (&[0, 1], 2, 2.0, false);
        let rest: [Line; 3] = [(&[0], 3, 1.0, false), (&[3], 4, 2.0, true), (&[4], 5, 1.0, false)];
        let lines = [&[weight][..], &rest].concat();
        assert_eq!(moved(&lines, &[0, 1], &[]), [(0, (3, AHEAD))]);
        assert_eq!(moved(&lines, &[0, 1, 2], &[]), []);
        assert_eq!(moved(&lines, &[0, 1], &[1]), []);
    }

    #[test]
    fn what_hides_one_exchange_is_not_taken_for_another() {
        let first: [Line; 3] = [(&[0], 1, 2.0, true), (&[2], 3, 2.0, false), (&[1], 4, 1.0, false)];
        let second: [Line; 2] = [(&[4], 5, 2.0, true), (&[5], 6, 1.0, false)];
        assert_eq!(moved(&[&first[..], &second].concat(), &[0], &[]), []);
        // With as much again beside it, one of the two is free.
        let spare: Line = (&[2], 7, 2.0, false);
        let lines = [&first[..2], &[spare], &first[2..], &second].concat();
        assert_eq!(moved(&lines, &[0], &[]), [(2, (5, AHEAD))]);
    }
}
