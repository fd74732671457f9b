//! `bucket`: small collectives of one kind, group and block travel as one instruction, so that they pay for one latency.
//!
//! A collective waits for others as long as `hide-comm` allows, unless it is large enough to go alone, or the work that is left
//! before somebody needs it would no longer hide it.

use plan::{Collect, Op, PlaceId};
use program::{DefUse, Instruction, Joins, Origin, RankProgram};
use serde::{Deserialize, Serialize};
use types::Name;

use crate::RankPass;
use crate::hide_comm::before;
use crate::ranks::RankContext;
use crate::times::Times;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {}

impl RankPass for Bucket {
    fn run(&self, program: &mut RankProgram, cx: &mut RankContext<'_>) {
        bucket(program, &mut cx.times);
    }
}

pub fn bucket(program: &mut RankProgram, times: &mut Times<'_>) {
    let work = before(times.kernels(program).into_iter());
    let needs = needs(program, &program.def_use(), &work);
    let old = std::mem::take(&mut program.instructions);
    let mut turns = std::mem::take(&mut program.turns);
    let mut begins = turns.iter_mut().peekable();
    let mut out: Vec<Instruction> = Vec::with_capacity(old.len());
    let mut open: Vec<Together> = vec![];
    for (i, (mut next, need)) in old.into_iter().zip(needs).enumerate() {
        let is_over = |bucket: &mut Together| bucket.joins.until as usize <= i || bucket.is_due(i, work[i]);
        out.extend(open.extract_if(.., is_over).map(|bucket| bucket.issue(program)));
        while let Some(turn) = begins.next_if(|turn| turn.at <= i) {
            turn.at = out.len();
        }
        let (collect, joins) = match (next.op, next.joins.take()) {
            (Op::Collect(collect), Some(joins)) => (collect, joins),
            (op, _) => {
                out.push(Instruction { op, ..next });
                continue;
            }
        };
        let mut next = Together {
            joins,
            need,
            seconds: 0.0,
            whys: vec![collect.why.clone()],
            places: vec![next.origin.place],
            origin: next.origin,
            all: *collect,
        };
        if let Some(at) = open.iter().position(|bucket| bucket.takes(&next)) {
            next = open.remove(at).with(next);
        }
        next.seconds = times.exchange(&next.all);
        if next.is_due(i + 1, work[i]) || times.is_full(&next.all) {
            out.push(next.issue(program));
        } else {
            open.push(next);
        }
    }
    out.extend(open.into_iter().map(|bucket| bucket.issue(program)));
    begins.for_each(|turn| turn.at = out.len());
    program.instructions = out;
    program.turns = turns;
}

/// When somebody needs what a collective makes, or overwrites what it reads.
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
fn needs(program: &RankProgram, def_use: &DefUse, work: &[f64]) -> Vec<Need> {
    // By buffer: the next use and the next write.
    let (mut used, mut written) = (vec![Need::NONE; def_use.buffers()], vec![Need::NONE; def_use.buffers()]);
    let mut needs = vec![Need::NONE; def_use.len()];
    for (i, instruction) in program.instructions.iter().enumerate().rev() {
        let mut here = Need { touch: i, work: work[i] };
        if let Op::Collect(collect) = &instruction.op {
            let uses = collect.to.iter().map(|s| used[s.buffer.index()]);
            let writes = collect.from.iter().map(|s| written[s.buffer.index()]);
            needs[i] = uses.chain(writes).fold(Need::NONE, Need::first);
            here.work = needs[i].work;
        }
        for (slice, access) in def_use.touches(i) {
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
struct Together {
    joins: Joins,
    need: Need,
    /// What all of them take.
    seconds: f64,
    all: Collect,
    whys: Vec<Name>,
    places: Vec<PlaceId>,
    /// Of the first.
    origin: Origin,
}

impl Together {
    fn takes(&self, other: &Together) -> bool {
        self.all.kind == other.all.kind && self.all.group == other.all.group && self.joins == other.joins
    }

    /// Whether it must go before the instruction `next`, when so much work is done.
    fn is_due(&self, next: usize, work: f64) -> bool {
        self.need.touch <= next || work + self.seconds >= self.need.work
    }

    fn with(mut self, other: Together) -> Self {
        self.need = self.need.first(other.need);
        self.all.from.extend(other.all.from);
        self.all.to.extend(other.all.to);
        self.places.extend(other.places);
        for why in other.whys {
            if !self.whys.contains(&why) {
                self.whys.push(why);
            }
        }
        self
    }

    fn issue(self, program: &mut RankProgram) -> Instruction {
        let why = self.whys.iter().map(Name::as_str).collect::<Vec<_>>().join("; ").into();
        let place = program.common_place(&self.places);
        let op = Op::Collect(Collect { why, ..self.all }.into());
        Instruction::new(op, Origin { place, ..self.origin })
    }
}
