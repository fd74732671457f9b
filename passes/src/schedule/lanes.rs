//! Lanes: feeds and copies to and from the host on the copy lane, the collectives of each group on a lane of their own, all else on compute, and the
//! records and waits that order them.
//!
//! Each lane keeps a clock: how far it knows every lane to be done. A wait is put where an instruction needs more than
//! its lane knows, right before the instruction, and nowhere else.

use std::cmp::Reverse;
use std::collections::HashMap;

use plan::{Collect, CollectKind, EventId, Instruction, Kernel, LaneId, LaneKind, Op, PlaceId};
use smallvec::SmallVec;
use types::Name;

use super::unroll::Turn;
use super::update::accesses;
use crate::stages::Unit;

const COMPUTE: usize = 0;

pub struct Lanes {
    pub kinds: Vec<LaneKind>,
    pub instructions: Vec<Instruction>,
    pub events: u32,
    pub units: Vec<plan::Unit>,
}

/// For each lane, how many of the instructions put out are known to be done as far as they are that lane's.
type Clock = SmallVec<[u32; 8]>;

/// An instruction that was put out.
#[derive(Clone, Copy)]
struct Done {
    lane: usize,
    /// One past its index.
    position: u32,
    /// Tells that it is done. None on compute, which records all that it did before another lane goes on.
    event: Option<EventId>,
}

/// Who touched a buffer last.
#[derive(Clone, Default)]
struct Uses {
    write: Option<Done>,
    /// One for each lane, since the write.
    reads: SmallVec<[Done; 2]>,
}

/// What lanes serve, numbered in the order in which it occurs in a plan: the groups, and each way between two ranks of a
/// group that sends take. Both ends of a way have it under one number.
#[derive(Clone, Debug, Default)]
pub struct Communicators(Vec<(Vec<Name>, Option<[i64; 2]>)>);

impl Communicators {
    /// `here` is the position among the ranks that send each other messages.
    fn number(&mut self, collect: &Collect, here: usize) -> u32 {
        let here = here as i64;
        let way = match &collect.kind {
            CollectKind::Send { peer } => Some([here, peer.base]),
            CollectKind::Receive { peer } => Some([peer.base, here]),
            _ => None,
        };
        self.entry(&collect.group, way)
    }

    /// By number of `other`: its number here.
    pub fn take_in(&mut self, other: Self) -> Vec<u32> {
        other.0.iter().map(|(group, way)| self.entry(group, *way)).collect()
    }

    fn entry(&mut self, group: &[Name], way: Option<[i64; 2]>) -> u32 {
        let known = self.0.iter().position(|(known, of)| known == group && *of == way);
        let number = known.unwrap_or_else(|| {
            self.0.push((group.to_vec(), way));
            self.0.len() - 1
        });
        number as u32
    }
}

/// What a rank has to know of the pipeline that it is part of.
pub struct Messages {
    /// Its position among the ranks that send each other messages.
    pub here: usize,
    /// Its units, numbered from 1.
    pub order: Vec<Unit>,
    /// By the id of a send: the unit that waits until it is taken. None waits for others before the end.
    pub settles: HashMap<u32, u32>,
}

pub fn is_message(op: &Op) -> bool {
    let is = |kind: &CollectKind| matches!(kind, CollectKind::Send { .. } | CollectKind::Receive { .. });
    matches!(op, Op::Collect(collect) if is(&collect.kind))
}

/// When compute enters a turn, it waits for all collectives issued before the turn that it leaves, so that the memory of
/// what travels stays bounded. For what it sends it waits when `messages` say so, and for what it receives where it
/// is read: other ranks may need it to go on first. For what goes to the host it waits as for collectives.
///
/// `on_host` says by buffer whether it is in the host's memory.
pub fn assign(
    instructions: Vec<Instruction>,
    turns: &[Turn],
    kernels: &[Kernel],
    on_host: &[bool],
    communicators: &mut Communicators,
    messages: &Messages,
) -> Lanes {
    let (kinds, lanes) = kinds(&instructions, on_host, communicators, messages.here);
    let mut meets = vec![false; kinds.len()];
    for (instruction, &lane) in instructions.iter().zip(&lanes) {
        meets[lane] |= matches!(instruction.op, Op::Collect(_)) && !is_message(&instruction.op);
    }
    let mut walk = Walk::new(kinds.len());
    let mut uses: Vec<Uses> = vec![Uses::default(); on_host.len()];
    let mut issued: Vec<Option<Done>> = vec![];
    // The last copy to the host, and the last before this turn.
    let mut copied: [Option<Done>; 2] = [None; 2];
    let mut sent: Vec<(u32, Done)> = vec![];
    let mut begins: Vec<(u32, usize)> = vec![];
    let mut turns = turns.chunk_by(|a, b| a.at == b.at).peekable();
    for (index, (instruction, lane)) in instructions.into_iter().zip(lanes).enumerate() {
        while let Some(turns) = turns.next_if(|turns| turns[0].at <= index) {
            for unit in turns.iter().filter_map(|turn| turn.unit) {
                begins.push((unit, walk.out.len()));
                let settled = sent.extract_if(.., |(settles, _)| *settles <= unit);
                walk.wait(COMPUTE, settled.map(|(_, done)| done).collect(), instruction.place);
            }
            let last = copied[0];
            let before = std::mem::replace(&mut issued, walk.last.clone());
            let exchanges = before.into_iter().flatten().filter(|d| meets[d.lane]);
            let copies = std::mem::replace(&mut copied[1], last);
            walk.wait(COMPUTE, exchanges.chain(copies).collect(), instruction.place);
        }
        let touches = instruction.op.touches(|k| accesses(kernels, k));
        let mut needs: Vec<Done> = vec![];
        for (slice, access) in &touches {
            let uses = &uses[slice.buffer.index()];
            needs.extend(uses.write);
            if access.writes() {
                needs.extend(&uses.reads);
            }
        }
        if lane != COMPUTE {
            needs.extend(walk.record_compute(instruction.place));
        }
        walk.wait(lane, needs, instruction.place);
        let settles = match &instruction.op {
            Op::Collect(collect) => messages.settles.get(&collect.id).copied(),
            _ => None,
        };
        let is_copy = matches!(&instruction.op, Op::Copy { to, .. } if on_host[to.buffer.index()]);
        let done = walk.put(lane, instruction);
        if is_copy {
            copied[0] = Some(done);
        }
        sent.extend(settles.map(|unit| (unit, done)));
        for (slice, access) in &touches {
            let uses = &mut uses[slice.buffer.index()];
            if access.writes() {
                *uses = Uses { write: Some(done), reads: SmallVec::new() };
            } else {
                uses.reads.retain(|r| r.lane != lane);
                uses.reads.push(done);
            }
        }
    }
    if let Some(place) = walk.out.last().map(|i| i.place) {
        let outstanding = walk.last.iter().copied().flatten().collect();
        walk.wait(COMPUTE, outstanding, place);
    }
    let end = walk.out.len();
    let (instructions, events, kept) = walk.finish();
    let ends = begins.iter().skip(1).map(|(_, at)| *at).chain([end]);
    let units = begins.iter().zip(ends).filter_map(|(&(number, first), end)| {
        let &Unit { stage, microbatch, kind } = messages.order.get(number.checked_sub(1)? as usize)?;
        let (stage, microbatch, kind) = (stage as u32, microbatch as u32, kind.into());
        Some(plan::Unit { stage, microbatch, kind, first: kept[first], end: kept[end] })
    });
    Lanes { kinds, instructions, events, units: units.collect() }
}

/// The lanes, and each instruction's own.
fn kinds(
    instructions: &[Instruction],
    on_host: &[bool],
    communicators: &mut Communicators,
    here: usize,
) -> (Vec<LaneKind>, Vec<usize>) {
    let copies = |op: &Op| match op {
        Op::Feed { .. } => true,
        Op::Copy { from, to } => on_host[from.buffer.index()] || on_host[to.buffer.index()],
        _ => false,
    };
    let mut kinds = vec![LaneKind::Compute];
    kinds.extend(instructions.iter().any(|i| copies(&i.op)).then_some(LaneKind::Copy));
    let lanes = instructions.iter().map(|instruction| match &instruction.op {
        op if copies(op) => 1,
        Op::Collect(collect) => {
            let kind = LaneKind::Comm(communicators.number(collect, here));
            kinds.iter().position(|known| *known == kind).unwrap_or_else(|| {
                kinds.push(kind);
                kinds.len() - 1
            })
        }
        _ => COMPUTE,
    });
    let lanes = lanes.collect();
    (kinds, lanes)
}

struct Walk {
    clocks: Vec<Clock>,
    /// The last instruction of each lane but compute.
    last: Vec<Option<Done>>,
    /// The record that compute put out last, if it did nothing since.
    record: Option<Done>,
    /// By event: what its record knows, and whether anyone waits for it.
    events: Vec<(Clock, bool)>,
    out: Vec<Instruction>,
}

impl Walk {
    fn new(lanes: usize) -> Self {
        let clock = SmallVec::from_elem(0, lanes);
        Self { clocks: vec![clock; lanes], last: vec![None; lanes], record: None, events: vec![], out: vec![] }
    }

    fn push(&mut self, lane: usize, place: PlaceId, op: Op) -> u32 {
        self.out.push(Instruction { lane: LaneId::new(lane), place, op });
        let position = self.out.len() as u32;
        self.clocks[lane][lane] = position;
        position
    }

    fn record(&mut self, lane: usize, place: PlaceId) -> Done {
        let event = EventId::new(self.events.len());
        let position = self.push(lane, place, Op::Record { event });
        self.events.push((self.clocks[lane].clone(), false));
        Done { lane, position, event: Some(event) }
    }

    /// A record of all that compute has done so far, if it has done anything.
    fn record_compute(&mut self, place: PlaceId) -> Option<Done> {
        if self.record.is_none() && self.clocks[COMPUTE][COMPUTE] > 0 {
            self.record = Some(self.record(COMPUTE, place));
        }
        self.record
    }

    /// Makes a lane wait for what it does not know to be done. What was put out later may have waited for the earlier, and
    /// never the other way round.
    fn wait(&mut self, lane: usize, mut needs: Vec<Done>, place: PlaceId) {
        needs.sort_unstable_by_key(|d| Reverse(d.position));
        for Done { lane: other, position, event } in needs {
            let Some(event) = event.filter(|_| other != lane && self.clocks[lane][other] < position) else { continue };
            self.push(lane, place, Op::Wait { event });
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
        let place = instruction.place;
        let position = self.push(lane, place, instruction.op);
        if lane == COMPUTE {
            self.record = None;
            return Done { lane, position, event: None };
        }
        let done = Done { position, ..self.record(lane, place) };
        self.last[lane] = Some(done);
        done
    }

    /// Without the records that nobody waits for: the instructions, the number of events, and by place, how many of the
    /// instructions before it are left.
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
