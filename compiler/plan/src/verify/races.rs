//! Races: every read finds its own buffer's bytes written, all conflicting accesses are ordered, and whatever touches a
//! buffer comes after the first instruction of its life and before the last.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::violation::{Findings, Rule};
use crate::{Access, Buffer, BufferId, Life, Op, Scope, Slice};

/// For each lane, how many of its instructions are known to be done.
type Clock = SmallVec<[u32; 8]>;

/// One access, as later accesses need to know it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Event {
    lane: u32,
    /// From 1, within the lane.
    position: u32,
    instruction: u32,
}

/// What is known of a range of bytes.
#[derive(Clone)]
struct Segment {
    end: u64,
    /// Whose content the bytes are.
    owner: BufferId,
    /// None for what was there before the program began.
    write: Option<Event>,
    /// The latest read of each lane since that write.
    reads: SmallVec<[Event; 2]>,
}

struct Walk<'a> {
    scope: Scope<'a>,
    /// By first byte; gaps have never been written.
    segments: BTreeMap<u64, Segment>,
    /// By own buffer of the body.
    lives: Vec<Span>,
    accesses: u64,
    ordered: u64,
}

/// What is known of a life while it lasts.
#[derive(Clone, Default)]
struct Span {
    first: Option<Event>,
    /// The latest touch of each lane.
    touches: SmallVec<[Event; 2]>,
}

/// Gives the number of accesses that were followed and of conflicts that were found to be ordered.
pub fn check(scope: Scope<'_>, findings: &mut Findings) -> (u64, u64) {
    let Scope { plan, class, body, .. } = scope;
    let lanes = body.lanes.len();
    let mut clocks: Vec<Clock> = vec![SmallVec::from_elem(0, lanes); lanes];
    let mut events: Vec<Option<Clock>> = vec![None; body.events as usize];
    let lives = vec![Span::default(); body.buffers.len()];
    let mut walk = Walk { scope, segments: BTreeMap::new(), lives, accesses: 0, ordered: 0 };
    let (mut births, mut deaths) = (vec![vec![]; body.instructions.len()], vec![vec![]; body.instructions.len()]);
    for (own, buffer) in body.buffers.iter().enumerate() {
        if let Life::Span { first, last } = buffer.life {
            births[first as usize].push(own);
            deaths[last as usize].push(own);
        }
    }
    let residency = scope.program.residency;
    let present = class.persistent.iter().enumerate().filter(|(_, b)| b.is_there(residency));
    for (i, buffer) in present.filter(|(_, b)| b.bytes > 0) {
        let end = buffer.address() + buffer.bytes;
        let segment = Segment { end, owner: BufferId::new(i), write: None, reads: SmallVec::new() };
        walk.segments.insert(buffer.address(), segment);
    }
    for (index, instruction) in body.instructions.iter().enumerate() {
        if findings.full() {
            break;
        }
        let lane = instruction.lane.index();
        clocks[lane][lane] += 1;
        match &instruction.op {
            Op::Record { event } => {
                let slot = &mut events[event.index()];
                if slot.is_some() {
                    findings.add(Rule::Event, format!("{} records a second time", scope.describe(index)));
                }
                *slot = Some(clocks[lane].clone());
            }
            Op::Wait { event } => match &events[event.index()] {
                Some(clock) => {
                    for (mine, theirs) in clocks[lane].iter_mut().zip(clock) {
                        *mine = (*mine).max(*theirs);
                    }
                }
                None => {
                    let who = scope.describe(index);
                    findings.add(Rule::Event, format!("{who} comes before any record of {event}"));
                }
            },
            _ => {}
        }
        let event = Event { lane: lane as u32, position: clocks[lane][lane], instruction: index as u32 };
        let touches = instruction.op.touches(|k| plan.accesses(k));
        births[index].iter().for_each(|&own| walk.lives[own].first = Some(event));
        walk.within(index, &touches, findings);
        walk.accesses += touches.len() as u64;
        // Reads first: an instruction may overwrite what it reads, not the other way round.
        for (slice, _) in touches.iter().filter(|(s, a)| a.reads() && s.bytes > 0) {
            walk.read(event, &clocks[lane], *slice, findings);
        }
        for (slice, _) in touches.iter().filter(|(s, a)| a.writes() && s.bytes > 0) {
            walk.write(event, &clocks[lane], *slice, findings);
        }
        for (slice, _) in &touches {
            walk.live(event, &clocks[lane], slice.buffer, findings);
        }
        for &own in &deaths[index] {
            walk.end(event, &clocks[lane], own, findings);
        }
    }
    (walk.accesses, walk.ordered)
}

fn ordered(clock: &Clock, earlier: Event) -> bool {
    clock[earlier.lane as usize] >= earlier.position
}

impl Walk<'_> {
    fn range(&self, slice: Slice) -> (u64, u64) {
        let start = self.scope.buffer(slice.buffer).map_or(0, Buffer::address) + slice.offset;
        (start, start + slice.bytes)
    }

    fn name(&self, buffer: BufferId) -> &str {
        self.scope.buffer(buffer).map_or("?", |b| b.name.as_str())
    }

    /// The parts of one call run in any order, so its own arguments must not conflict either.
    fn within(&self, index: usize, touches: &[(Slice, Access)], findings: &mut Findings) {
        let in_place: &[(u32, u32)] = match &self.scope.body.instructions[index].op {
            Op::Launch(launch) => self.scope.plan.kernels.get(launch.kernel.index()).map_or(&[], |k| &k.in_place),
            _ => &[],
        };
        for (i, (a, how)) in touches.iter().enumerate() {
            for (j, (b, also)) in touches.iter().enumerate().skip(i + 1) {
                if a == b && in_place.contains(&(i as u32, j as u32)) {
                    continue;
                }
                let ((a0, a1), (b0, b1)) = (self.range(*a), self.range(*b));
                if (how.writes() || also.writes()) && a0 < b1 && b0 < a1 {
                    let who = self.scope.describe(index);
                    let (x, y) = (self.name(a.buffer), self.name(b.buffer));
                    let message = format!("{who}: the slices of `{x}` and `{y}` overlap and one of them is written");
                    findings.add(Rule::Race, message);
                }
            }
        }
    }

    /// Cuts the segment that spans `at`, if one does, so that a segment begins there.
    fn cut(&mut self, at: u64) {
        if let Some((&start, segment)) = self.segments.range_mut(..at).next_back()
            && segment.end > at
        {
            debug_assert!(start < at);
            let upper = segment.clone();
            segment.end = at;
            self.segments.insert(at, upper);
        }
    }

    fn read(&mut self, event: Event, clock: &Clock, slice: Slice, findings: &mut Findings) {
        let (start, end) = self.range(slice);
        self.cut(start);
        self.cut(end);
        let (mut covered, mut stale, mut racing) = (start, None, None);
        for (&from, segment) in self.segments.range_mut(start..end) {
            if from != covered {
                break;
            }
            covered = segment.end;
            if segment.owner != slice.buffer {
                stale = stale.or(Some((segment.owner, segment.write)));
            }
            match segment.write {
                Some(write) if !ordered(clock, write) => racing = racing.or(Some((write, from, segment.end))),
                Some(_) => self.ordered += 1,
                None => {}
            }
            match segment.reads.iter_mut().find(|r| r.lane == event.lane) {
                Some(read) => *read = event,
                None => segment.reads.push(event),
            }
        }
        let who = || self.scope.describe(event.instruction as usize);
        if covered < end {
            let message = format!("{} reads `{}`, which nothing wrote before", who(), self.name(slice.buffer));
            findings.add(Rule::Unwritten, message);
        } else if let Some((owner, write)) = stale {
            let by = write.map(|w| self.scope.describe(w.instruction as usize));
            let by = by.map(|by| format!(", by {by}")).unwrap_or_default();
            let (mine, other) = (self.name(slice.buffer), self.name(owner));
            findings.add(Rule::Unwritten, format!("{} reads `{mine}`, whose bytes hold `{other}` by then{by}", who()));
        }
        if let Some((write, from, to)) = racing {
            self.race(event, write, (from, to), findings);
        }
    }

    fn write(&mut self, event: Event, clock: &Clock, slice: Slice, findings: &mut Findings) {
        let (start, end) = self.range(slice);
        self.cut(start);
        self.cut(end);
        let mut racing: Option<(Event, u64, u64)> = None;
        let mut inside: SmallVec<[u64; 16]> = SmallVec::new();
        for (&from, segment) in self.segments.range(start..end) {
            inside.push(from);
            let earlier = segment.write.iter().chain(&segment.reads);
            for other in earlier.filter(|e| e.instruction != event.instruction) {
                if ordered(clock, *other) {
                    self.ordered += 1;
                } else {
                    racing = racing.or(Some((*other, from, segment.end)));
                }
            }
        }
        for from in inside {
            self.segments.remove(&from);
        }
        let segment = Segment { end, owner: slice.buffer, write: Some(event), reads: SmallVec::new() };
        self.segments.insert(start, segment);
        if let Some((other, from, to)) = racing {
            self.race(event, other, (from, to), findings);
        }
    }

    /// A touch of a buffer, after the beginning of its life for certain.
    fn live(&mut self, event: Event, clock: &Clock, buffer: BufferId, findings: &mut Findings) {
        let own = buffer.index().checked_sub(self.scope.class.persistent.len());
        let Some(span) = own.and_then(|own| self.lives.get_mut(own)) else { return };
        match span.touches.iter_mut().find(|t| t.lane == event.lane) {
            Some(touch) => *touch = event,
            None => span.touches.push(event),
        }
        // A touch before the first instruction in the list has been reported with the lives.
        if let Some(first) = span.first.filter(|first| !ordered(clock, *first)) {
            let who = |e: Event| self.scope.describe(e.instruction as usize);
            let (touch, first, name) = (who(event), who(first), self.name(buffer));
            findings.add(
                Rule::Life,
                format!("{touch} touches `{name}`, and nothing puts it after {first}, where its life begins"),
            );
        }
    }

    /// The end of a life, after all that touched the buffer for certain: its bytes are free from here on.
    fn end(&mut self, event: Event, clock: &Clock, own: usize, findings: &mut Findings) {
        let touches = std::mem::take(&mut self.lives[own].touches);
        if let Some(touch) = touches.into_iter().find(|t| !ordered(clock, *t)) {
            let who = |e: Event| self.scope.describe(e.instruction as usize);
            let (touch, last, name) = (who(touch), who(event), &self.scope.body.buffers[own].name);
            findings.add(
                Rule::Life,
                format!("{touch} touches `{name}`, and nothing puts it before {last}, where its life ends"),
            );
        }
    }

    fn race(&self, event: Event, other: Event, (from, to): (u64, u64), findings: &mut Findings) {
        let describe = |e: Event| self.scope.describe(e.instruction as usize);
        let lane = |e: Event| self.scope.body.lanes[e.lane as usize];
        let (from, to) = (from & !(1 << 62), to & !(1 << 62));
        findings.add(
            Rule::Race,
            format!(
                "no event orders #{} (lane {}) and #{} (lane {}), which share bytes {from}..{to} of the arena and do not both read: {}; {}",
                other.instruction, lane(other), event.instruction, lane(event), describe(other), describe(event),
            ),
        );
    }
}
