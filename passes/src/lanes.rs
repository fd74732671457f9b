//! `lanes`: feeds and copies to and from the host on the copy lane, the collectives of each group on a lane of their own, all
//! else on compute, and the records and waits that order them.
//!
//! Each lane keeps a clock: how far it knows every lane to be done. A wait is put where an instruction needs more than
//! its lane knows, right before the instruction, and nowhere else.

use std::cmp::Reverse;

use cost::Unit;
use plan::{Access, Collect, CollectKind, EventId, LaneId, Op, Slice};
use program::{Instruction, Lane, Origin, RankProgram, is_message};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::RankPass;
use crate::ranks::RankContext;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lanes {}

impl RankPass for Lanes {
    fn run(&self, program: &mut RankProgram, _: &mut RankContext<'_>) {
        lanes(program);
    }
}

const COMPUTE: usize = 0;

/// By lane: the position up to which its instructions are known to be done.
type Clock = SmallVec<[u32; 8]>;

/// An emitted instruction.
#[derive(Clone, Copy)]
struct Done {
    lane: usize,
    /// One past its index.
    position: u32,
    /// Recorded behind it. None on compute, which records once before another lane needs it.
    event: Option<EventId>,
}

/// Who touched a buffer last.
#[derive(Clone, Default)]
struct LastUses {
    write: Option<Done>,
    /// One for each lane, since the write.
    reads: SmallVec<[Done; 2]>,
}

/// When compute enters a turn, it waits for all collectives issued before the turn that it leaves, so that the memory of
/// what travels stays bounded. It waits for what it sends when the pipeline says so ([`program::Pipeline::settles`]), and for
/// what it receives where that is read: other ranks may need it to go on first. It waits for copies to the host as for
/// collectives.
pub fn lanes(program: &mut RankProgram) {
    let (kinds, lanes) = kinds(program);
    let turns = std::mem::take(&mut program.turns);
    let old = std::mem::take(&mut program.instructions);
    let mut meets = vec![false; kinds.len()];
    for (instruction, &lane) in old.iter().zip(&lanes) {
        meets[lane] |= matches!(instruction.op, Op::Collect(_)) && !is_message(&instruction.op);
    }
    let mut walk = Walk::new(kinds.len());
    let mut uses: Vec<LastUses> = vec![LastUses::default(); program.buffers.len()];
    let mut issued: Vec<Option<Done>> = vec![];
    // The last copy to the host, and the last before this turn.
    let mut copied: [Option<Done>; 2] = [None; 2];
    let mut sent: Vec<(u32, Done)> = vec![];
    let mut begins: Vec<(u32, usize)> = vec![];
    let mut groups = turns.chunk_by(|a, b| a.at == b.at).peekable();
    for (index, (instruction, lane)) in old.into_iter().zip(lanes).enumerate() {
        while let Some(turns) = groups.next_if(|turns| turns[0].at <= index) {
            for unit in turns.iter().filter_map(|turn| turn.unit) {
                begins.push((unit, walk.out.len()));
                let settled = sent.extract_if(.., |(settles, _)| *settles <= unit);
                walk.wait(COMPUTE, settled.map(|(_, done)| done).collect(), instruction.origin);
            }
            let last = copied[0];
            let before = std::mem::replace(&mut issued, walk.last.clone());
            let exchanges = before.into_iter().flatten().filter(|d| meets[d.lane]);
            let copies = std::mem::replace(&mut copied[1], last);
            walk.wait(COMPUTE, exchanges.chain(copies).collect(), instruction.origin);
        }
        let touches: SmallVec<[(Slice, Access); 8]> = program.touches(&instruction).collect();
        let mut needs: Vec<Done> = vec![];
        for (slice, access) in &touches {
            let uses = &uses[slice.buffer.index()];
            needs.extend(uses.write);
            if access.writes() {
                needs.extend(&uses.reads);
            }
        }
        if lane != COMPUTE {
            needs.extend(walk.record_compute(instruction.origin));
        }
        walk.wait(lane, needs, instruction.origin);
        let settles = match &instruction.op {
            Op::Collect(collect) => program.pipeline.settles.get(&collect.id).copied(),
            _ => None,
        };
        let is_copy = matches!(&instruction.op, Op::Copy { to, .. } if program.buffer(to.buffer).on_host());
        let done = walk.put(lane, instruction);
        if is_copy {
            copied[0] = Some(done);
        }
        sent.extend(settles.map(|unit| (unit, done)));
        for (slice, access) in &touches {
            let uses = &mut uses[slice.buffer.index()];
            if access.writes() {
                *uses = LastUses { write: Some(done), reads: SmallVec::new() };
            } else {
                uses.reads.retain(|r| r.lane != lane);
                uses.reads.push(done);
            }
        }
    }
    if let Some(origin) = walk.out.last().map(|i| i.origin) {
        let outstanding = walk.last.iter().copied().flatten().collect();
        walk.wait(COMPUTE, outstanding, origin);
    }
    let end = walk.out.len();
    let (instructions, events, kept) = walk.finish();
    let ends = begins.iter().skip(1).map(|(_, at)| *at).chain([end]);
    let units = begins.iter().zip(ends).filter_map(|(&(number, first), end)| {
        let &Unit { stage, microbatch, kind } = program.pipeline.units.get(number.checked_sub(1)? as usize)?;
        let (stage, microbatch) = (stage as u32, microbatch as u32);
        Some(plan::Unit { stage, microbatch, kind, first: kept[first], end: kept[end] })
    });
    program.units = units.collect();
    (program.lanes, program.instructions, program.events) = (kinds, instructions, events);
}

/// The lanes, and by instruction its own.
fn kinds(program: &RankProgram) -> (Vec<Lane>, Vec<usize>) {
    let on_host = |slice: &Slice| program.buffer(slice.buffer).on_host();
    let copies = |op: &Op| match op {
        Op::Feed { .. } => true,
        Op::Copy { from, to } => on_host(from) || on_host(to),
        _ => false,
    };
    let mut kinds = vec![Lane::Compute];
    kinds.extend(program.instructions.iter().any(|i| copies(&i.op)).then_some(Lane::Copy));
    let lanes = program.instructions.iter().map(|instruction| match &instruction.op {
        op if copies(op) => 1,
        Op::Collect(collect) => {
            let way = way(collect, program.pipeline.rank);
            let known = kinds.iter().position(
                |known| matches!(known, Lane::Comm { group, way: of } if *group == collect.group && *of == way),
            );
            known.unwrap_or_else(|| {
                kinds.push(Lane::Comm { group: collect.group.clone(), way });
                kinds.len() - 1
            })
        }
        _ => COMPUTE,
    });
    let lanes = lanes.collect();
    (kinds, lanes)
}

/// The way that a message takes, sender first; `here` is this rank's position.
fn way(collect: &Collect, here: usize) -> Option<[i64; 2]> {
    let here = here as i64;
    match &collect.kind {
        CollectKind::Send { peer } => Some([here, peer.base]),
        CollectKind::Receive { peer } => Some([peer.base, here]),
        _ => None,
    }
}

struct Walk {
    clocks: Vec<Clock>,
    /// The last instruction of each lane but compute.
    last: Vec<Option<Done>>,
    /// The last record of compute, if compute did nothing since.
    record: Option<Done>,
    /// By event: the clock of its lane at the record, and whether anyone waits for it.
    events: Vec<(Clock, bool)>,
    out: Vec<Instruction>,
}

impl Walk {
    fn new(lanes: usize) -> Self {
        let clock = SmallVec::from_elem(0, lanes);
        Self { clocks: vec![clock; lanes], last: vec![None; lanes], record: None, events: vec![], out: vec![] }
    }

    fn push(&mut self, lane: usize, origin: Origin, op: Op) -> u32 {
        self.out.push(Instruction { lane: LaneId::new(lane), ..Instruction::new(op, origin) });
        let position = self.out.len() as u32;
        self.clocks[lane][lane] = position;
        position
    }

    fn record(&mut self, lane: usize, origin: Origin) -> Done {
        let event = EventId::new(self.events.len());
        let position = self.push(lane, origin, Op::Record { event });
        self.events.push((self.clocks[lane].clone(), false));
        Done { lane, position, event: Some(event) }
    }

    /// A record of all that compute has done so far, if it has done anything.
    fn record_compute(&mut self, origin: Origin) -> Option<Done> {
        if self.record.is_none() && self.clocks[COMPUTE][COMPUTE] > 0 {
            self.record = Some(self.record(COMPUTE, origin));
        }
        self.record
    }

    /// Makes a lane wait for what it does not know to be done, the latest first: a later instruction may imply an earlier one.
    fn wait(&mut self, lane: usize, mut needs: Vec<Done>, origin: Origin) {
        needs.sort_unstable_by_key(|d| Reverse(d.position));
        for Done { lane: other, position, event } in needs {
            let Some(event) = event.filter(|_| other != lane && self.clocks[lane][other] < position) else { continue };
            self.push(lane, origin, Op::Wait { event });
            let (known, waited) = &mut self.events[event.index()];
            *waited = true;
            for (mine, theirs) in self.clocks[lane].iter_mut().zip(known) {
                *mine = (*mine).max(*theirs);
            }
            if lane == COMPUTE {
                self.record = None;
            }
        }
    }

    fn put(&mut self, lane: usize, instruction: Instruction) -> Done {
        let origin = instruction.origin;
        let position = self.push(lane, origin, instruction.op);
        if lane == COMPUTE {
            self.record = None;
            return Done { lane, position, event: None };
        }
        let done = Done { position, ..self.record(lane, origin) };
        self.last[lane] = Some(done);
        done
    }

    /// The instructions without records that nobody waits for, the number of events, and by old index the new index.
    fn finish(self) -> (Vec<Instruction>, u32, Vec<u32>) {
        let mut events = 0;
        let numbers = self.events.iter().map(|(_, waited)| {
            events += u32::from(*waited);
            waited.then(|| EventId(events - 1))
        });
        let numbers: Vec<Option<EventId>> = numbers.collect();
        let mut kept = Vec::with_capacity(self.out.len() + 1);
        let mut instructions: Vec<Instruction> = Vec::with_capacity(self.out.len());
        for mut instruction in self.out {
            kept.push(instructions.len() as u32);
            if let Op::Record { event } | Op::Wait { event } = &mut instruction.op {
                let Some(number) = numbers[event.index()] else { continue };
                *event = number;
            }
            instructions.push(instruction);
        }
        kept.push(instructions.len() as u32);
        (instructions, events, kept)
    }
}
