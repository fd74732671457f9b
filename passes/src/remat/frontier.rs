//! The frontier of memory against time: a sequence of decisions, each the one with the least time per byte saved at the peak.
//!
//! It depends on the program and the machine and not on the budget: a smaller budget goes further along it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use program::RankProgram;

use super::facts::Facts;
use super::state::{Candidate, Change, Decisions, State};
use super::{Offload, Remat};

/// A decision, made alike for all micro-batches.
type Group = Vec<Candidate>;

/// Some decisions, and what is predicted once they are made.
#[derive(Clone, Debug)]
pub struct Step {
    changes: Vec<Change>,
    /// At the peak: of buffers of the program and of moments.
    pub bytes: i64,
    /// The cost of all decisions so far.
    pub seconds: f64,
}

pub struct Frontier<'f> {
    facts: &'f Facts,
    /// The first holds the decisions that the options demand.
    pub steps: Vec<Step>,
    /// The instruction of the peak before any decision.
    pub peak: u32,
}

/// Seconds by their bits: none is negative, so that they order alike.
type Ratio = u64;

struct Search<'f, 'a> {
    state: State<'f>,
    copies: Copies<'a>,
    groups: Vec<Group>,
    heap: BinaryHeap<Reverse<(Ratio, usize)>>,
    /// Groups that saved nothing at the last peak.
    idle: Vec<usize>,
    /// Whether anything was decided since the idle groups were tried.
    decided: bool,
}

/// The load of the host's link: seconds of copies by turn, beside the seconds that the turn computes.
struct Copies<'a> {
    facts: &'a Facts,
    bytes_per_second: f64,
    computes: Vec<f64>,
    out: Vec<f64>,
    back: Vec<f64>,
}

impl<'f> Frontier<'f> {
    /// As far as `enough` bytes. The host's link moves so many bytes a second.
    pub fn new(facts: &'f Facts, program: &RankProgram, options: &Remat, bytes_per_second: f64, enough: i64) -> Self {
        let mut search = Search {
            state: State::new(facts, &program.held),
            copies: Copies::new(facts, bytes_per_second),
            groups: vec![],
            heap: BinaryHeap::new(),
            idle: vec![],
            decided: false,
        };
        let peak = search.state.fullest().1;
        let mut first = Step { changes: vec![], bytes: 0, seconds: 0.0 };
        for (group, forced) in groups(facts, program, options) {
            if forced {
                for candidate in group {
                    let Some(change) = search.state.change(candidate, false) else { continue };
                    first.seconds += search.copies.price(&search.state, candidate, true);
                    search.state.decide(&change);
                    first.changes.push(change);
                }
            } else {
                search.heap.push(Reverse((0, search.groups.len())));
                search.groups.push(group);
            }
        }
        first.bytes = search.state.fullest().0;
        let mut steps = vec![first];
        while steps.last().is_some_and(|last| last.bytes > enough) {
            let Some((changes, seconds)) = search.next() else { break };
            let before = steps.last().map_or(0.0, |last| last.seconds);
            steps.push(Step { changes, bytes: search.state.fullest().0, seconds: before + seconds });
        }
        Self { facts, steps, peak }
    }

    /// Indices of steps, fewer bytes each; no more than `most`, evenly spaced in bytes, the first and the last among them.
    pub fn levels(&self, most: usize) -> Vec<usize> {
        let mut least = i64::MAX;
        let falls = self.steps.iter().enumerate().filter(|(_, step)| {
            let falls = step.bytes < least;
            least = least.min(step.bytes);
            falls
        });
        let falls: Vec<usize> = falls.map(|(i, _)| i).collect();
        if falls.len() <= most {
            return falls;
        }
        let (high, low) = (self.steps[falls[0]].bytes, self.steps[falls[falls.len() - 1]].bytes);
        let mut levels = vec![];
        for k in 0..most {
            let want = high - (high - low) * k as i64 / (most - 1) as i64;
            levels.extend(falls.iter().copied().find(|i| self.steps[*i].bytes <= want));
        }
        levels.dedup();
        levels
    }

    pub fn facts(&self) -> &'f Facts {
        self.facts
    }

    /// All decisions up to a step.
    pub fn decisions(&self, step: usize) -> Decisions {
        let mut decisions = Decisions::none(self.facts);
        self.steps[..=step].iter().flat_map(|step| &step.changes).for_each(|change| decisions.make(self.facts, change));
        decisions
    }
}

/// All possible decisions, in the order of the program, and whether the options demand them.
fn groups(facts: &Facts, program: &RankProgram, options: &Remat) -> Vec<(Group, bool)> {
    let mut groups: BTreeMap<(u32, u32, u32), (Vec<Candidate>, bool)> = BTreeMap::new();
    for (i, instruction) in program.instructions.iter().enumerate() {
        let site = instruction.origin.site;
        if options.recompute && facts.can_repeat[i] && facts.writes(i).any(|b| facts.gap(b.index()).is_some()) {
            groups.entry((site, 0, 0)).or_default().0.push(Candidate::Again(i as u32));
        }
        for (k, b) in facts.writes(i).enumerate() {
            let own = !program.is_persistent(b) && facts.maker[b.index()] == Some(i as u32);
            let far = || facts.gap(b.index()).is_some_and(|(_, at)| facts.can_wait(i as u32, at));
            if options.activations != Offload::None
                && own
                && !facts.is_message[i]
                && !facts.is_passing[b.index()]
                && far()
            {
                let group = groups.entry((site, 1, k as u32)).or_default();
                group.0.push(Candidate::Host(b.0));
                group.1 = options.activations == Offload::All;
            }
        }
    }
    if options.optimizer != Offload::None {
        let is_used = |b: &usize| facts.uses(*b).next().is_some();
        for b in (0..facts.persistent).filter(|b| program.held[*b] && facts.is_moment[*b] && is_used(b)) {
            let group = (vec![Candidate::Away(b as u32)], options.optimizer == Offload::All);
            groups.insert((u32::MAX, 2, b as u32), group);
        }
    }
    groups.into_values().collect()
}

impl Search<'_, '_> {
    /// Takes the decision with the least cost per byte saved at the peak; none if no decision saves any.
    fn next(&mut self) -> Option<(Vec<Change>, f64)> {
        let (_, at) = self.state.fullest();
        loop {
            let Some(Reverse((_, group))) = self.heap.pop() else {
                // After other decisions, or elsewhere, what was idle may count.
                if std::mem::take(&mut self.decided) {
                    self.heap.extend(self.idle.drain(..).map(|group| Reverse((0, group))));
                    continue;
                }
                return None;
            };
            let Some((ratio, deep)) = self.ratio(group, at) else {
                self.idle.push(group);
                continue;
            };
            if self.heap.peek().is_some_and(|Reverse(best)| *best < (ratio, group)) {
                self.heap.push(Reverse((ratio, group)));
                continue;
            }
            let (mut changes, mut seconds) = (vec![], 0.0);
            for candidate in self.groups[group].clone() {
                let Some(change) = self.state.change(candidate, deep) else { continue };
                seconds += change.seconds + self.copies.price(&self.state, candidate, true);
                self.state.decide(&change);
                changes.push(change);
            }
            self.decided = true;
            // Elsewhere, what was idle may be the cheapest.
            if self.state.fullest().1 != at {
                self.heap.extend(self.idle.drain(..).map(|group| Reverse((0, group))));
            }
            return Some((changes, seconds));
        }
    }

    /// Seconds per byte that a group saves at an instruction, deep or not, whichever is less.
    fn ratio(&mut self, group: usize, at: u32) -> Option<(Ratio, bool)> {
        let members = &self.groups[group];
        let counts = |candidate: &Candidate| match candidate {
            Candidate::Again(i) => self.state.returns(*i).is_some_and(|back| *i < at && at < back),
            Candidate::Host(b) => self.state.covers(*b as usize, at),
            Candidate::Away(_) => true,
        };
        let mut counting = members.iter().copied().filter(counts);
        let first = counting.next()?;
        let (count, all) = (1 + counting.count(), members.len());
        let price = self.copies.price(&self.state, first, false);
        let ways: &[bool] = if matches!(first, Candidate::Again(_)) { &[true, false] } else { &[false] };
        let mut best: Option<(Ratio, bool)> = None;
        for &deep in ways {
            let Some(change) = self.state.change(first, deep) else { continue };
            let saved = self.state.saves(&change, at);
            if saved > 0 {
                let ratio = (change.seconds + price) * all as f64 / (saved as f64 * count as f64);
                best = best.into_iter().chain([(ratio.to_bits(), deep)]).min_by_key(|(ratio, _)| *ratio);
            }
        }
        best
    }
}

impl<'a> Copies<'a> {
    fn new(facts: &'a Facts, bytes_per_second: f64) -> Self {
        let turns = facts.begins.len().max(1);
        let mut computes = vec![0.0; turns];
        for (i, seconds) in facts.seconds.iter().enumerate() {
            computes[facts.turn[i] as usize] += seconds;
        }
        Self { facts, bytes_per_second, computes, out: vec![0.0; turns], back: vec![0.0; turns] }
    }

    /// The cost of copies to the host and back: the time that exceeds what is computed meanwhile, and a small share of the rest,
    /// since predictions may be wrong. Nothing is computed while moments are copied.
    fn price(&mut self, state: &State<'_>, candidate: Candidate, decided: bool) -> f64 {
        const LITTLE: f64 = 0.02;
        match candidate {
            Candidate::Again(_) => 0.0,
            Candidate::Away(b) => 2.0 * self.facts.bytes[b as usize] as f64 / self.bytes_per_second,
            Candidate::Host(b) => {
                let seconds = self.facts.bytes[b as usize] as f64 / self.bytes_per_second;
                let ends = self.facts.maker[b as usize].zip(self.facts.gap(b as usize));
                let Some((maker, (_, back))) = ends else { return 0.0 };
                let back = state.host(b as usize).unwrap_or(back);
                let turns =
                    [self.facts.turn_of(maker), self.facts.turn_of(self.facts.asked(back))].map(|turn| turn as usize);
                let mut price = LITTLE * 2.0 * seconds;
                for (used, turn) in [&mut self.out, &mut self.back].into_iter().zip(turns) {
                    let room = self.computes[turn] - used[turn];
                    price += (seconds - room.max(0.0)).max(0.0);
                    if decided {
                        used[turn] += seconds;
                    }
                }
                price
            }
        }
    }
}
