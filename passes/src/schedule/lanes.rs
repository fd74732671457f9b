//! Lanes: feeds on the copy lane, the collectives of each group on a lane of their own, all else on compute, and the
//! records and waits that order them.
//!
//! Each lane keeps a clock: how far it knows every lane to be done. A wait is put where an instruction needs more than
//! its lane knows, right before the instruction, and nowhere else.

use std::cmp::Reverse;

use plan::{EventId, Instruction, Kernel, LaneId, LaneKind, Op, PlaceId};
use smallvec::SmallVec;
use types::Name;

use super::unroll::Turn;
use super::update::accesses;

const COMPUTE: usize = 0;

pub struct Lanes {
    pub kinds: Vec<LaneKind>,
    pub instructions: Vec<Instruction>,
    pub events: u32,
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

/// When compute enters a turn, it waits for all collectives issued before the turn that it leaves, so that the memory of
/// what travels stays bounded.
pub fn assign(instructions: Vec<Instruction>, turns: &[Turn], kernels: &[Kernel], buffers: usize) -> Lanes {
    let (kinds, lanes) = kinds(&instructions);
    let mut walk = Walk::new(kinds.len());
    let mut uses: Vec<Uses> = vec![Uses::default(); buffers];
    let mut issued: Vec<Option<Done>> = vec![];
    let mut begins: Vec<usize> = turns.iter().map(|turn| turn.at).collect();
    begins.dedup();
    let mut turns = begins.into_iter().peekable();
    for (index, (instruction, lane)) in instructions.into_iter().zip(lanes).enumerate() {
        while turns.next_if(|&at| at <= index).is_some() {
            let before = std::mem::replace(&mut issued, walk.last.clone());
            let exchanges = before.into_iter().flatten().filter(|d| matches!(kinds[d.lane], LaneKind::Comm(_)));
            walk.wait(COMPUTE, exchanges.collect(), instruction.place);
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
        let done = walk.put(lane, instruction);
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
    let (instructions, events) = walk.finish();
    Lanes { kinds, instructions, events }
}

/// The lanes, and each instruction's own. Communicators are numbered in the order in which their groups occur.
fn kinds(instructions: &[Instruction]) -> (Vec<LaneKind>, Vec<usize>) {
    let copies = instructions.iter().any(|i| matches!(i.op, Op::Feed { .. }));
    let first = 1 + usize::from(copies);
    let mut groups: Vec<&[Name]> = vec![];
    let mut lanes = Vec::with_capacity(instructions.len());
    for instruction in instructions {
        lanes.push(match &instruction.op {
            Op::Feed { .. } => 1,
            Op::Collect(collect) => {
                let known = groups.iter().position(|g| *g == collect.group).unwrap_or(groups.len());
                if known == groups.len() {
                    groups.push(&collect.group);
                }
                first + known
            }
            _ => COMPUTE,
        });
    }
    let mut kinds = vec![LaneKind::Compute];
    kinds.extend(copies.then_some(LaneKind::Copy));
    kinds.extend((0..groups.len()).map(|g| LaneKind::Comm(g as u32)));
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

    /// Without the records that nobody waits for.
    fn finish(self) -> (Vec<Instruction>, u32) {
        let mut events = 0;
        let numbers = self.events.iter().map(|(_, waited)| {
            events += u32::from(*waited);
            waited.then(|| EventId(events - 1))
        });
        let numbers: Vec<Option<EventId>> = numbers.collect();
        let renumbered = self.out.into_iter().filter_map(|mut instruction| {
            if let Op::Record { event } | Op::Wait { event } = &mut instruction.op {
                *event = numbers[event.index()]?;
            }
            Some(instruction)
        });
        (renumbered.collect(), events)
    }
}
