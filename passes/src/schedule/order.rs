//! The order of instructions: updates as early as their operands allow, emits right after what they show, feeds on the
//! copy lane; then the lives of buffers.

use std::collections::HashMap;

use plan::{Body, Buffer, BufferId, EventId, Instruction, Kernel, LaneId, LaneKind, Life, Op};

use super::unroll::Unrolled;
use super::update::{accesses, slices_mut};

const COMPUTE: LaneId = LaneId(0);
const COPY: LaneId = LaneId(1);

/// Moves launches that write nothing but persistent buffers, and emits, up to right after the last instruction they
/// depend on: a gradient is then freed as soon as its update is done.
pub fn stream(mut unrolled: Unrolled, kernels: &[Kernel], persistent: usize) -> Unrolled {
    let mut last_write: HashMap<BufferId, usize> = HashMap::new();
    let mut last_touch: HashMap<BufferId, usize> = HashMap::new();
    let mut keys = Vec::with_capacity(unrolled.instructions.len());
    for (i, instruction) in unrolled.instructions.iter().enumerate() {
        let touches = instruction.op.touches(|k| accesses(kernels, k));
        let updates = matches!(instruction.op, Op::Launch(_))
            && touches.iter().all(|(s, a)| !a.writes() || s.buffer.index() < persistent);
        let movable = updates || matches!(instruction.op, Op::Emit { .. });
        let mut after = i;
        if movable {
            let needs = touches
                .iter()
                .filter_map(|(s, a)| if a.writes() { last_touch.get(&s.buffer) } else { last_write.get(&s.buffer) });
            after = needs.copied().max().unwrap_or(0);
        }
        for (slice, access) in &touches {
            let at = last_touch.entry(slice.buffer).or_insert(after);
            *at = (*at).max(after);
            if access.writes() {
                last_write.insert(slice.buffer, after);
            }
        }
        // Among those that follow one instruction, the old order stays.
        keys.push((after, movable, i));
    }
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|&i| keys[i]);
    let mut taken: Vec<Option<Instruction>> = unrolled.instructions.into_iter().map(Some).collect();
    unrolled.instructions = order.into_iter().filter_map(|i| taken[i].take()).collect();
    unrolled
}

/// Puts feeds on the copy lane with an event each, drops buffers that nothing touches and computes lives.
pub fn close(unrolled: Unrolled, kernels: &[Kernel], persistent: usize) -> Body {
    let Unrolled { buffers, instructions, .. } = unrolled;
    let (feeds, rest): (Vec<_>, Vec<_>) = instructions.into_iter().partition(|i| matches!(i.op, Op::Feed { .. }));
    let mut out = vec![];
    let mut pending: HashMap<BufferId, EventId> = HashMap::new();
    for mut feed in feeds {
        feed.lane = COPY;
        let event = EventId::new(pending.len());
        let record = Instruction { lane: COPY, place: feed.place, op: Op::Record { event } };
        if let Op::Feed { to, .. } = &feed.op {
            pending.insert(to.buffer, event);
        }
        out.push(feed);
        out.push(record);
    }
    let mut events = pending.len() as u32;
    let first_comm = if events > 0 { 2 } else { 1 };
    let mut groups: Vec<Vec<types::Name>> = vec![];
    for instruction in rest {
        let mut waits: Vec<EventId> = vec![];
        for (slice, _) in instruction.op.touches(|k| accesses(kernels, k)) {
            waits.extend(pending.remove(&slice.buffer));
        }
        waits.sort_unstable();
        for event in waits {
            out.push(Instruction { lane: COMPUTE, place: instruction.place, op: Op::Wait { event } });
        }
        let Op::Collect(collect) = &instruction.op else {
            out.push(instruction);
            continue;
        };
        // A communicator has its own lane; compute hands over to it and waits.
        let comm = groups.iter().position(|g| *g == collect.group).unwrap_or_else(|| {
            groups.push(collect.group.clone());
            groups.len() - 1
        });
        let (lane, place) = (LaneId::new(first_comm + comm), instruction.place);
        let [before, after] = [events, events + 1].map(|e| EventId::new(e as usize));
        events += 2;
        let step = |lane, op| Instruction { lane, place, op };
        out.push(step(COMPUTE, Op::Record { event: before }));
        out.push(step(lane, Op::Wait { event: before }));
        out.push(Instruction { lane, ..instruction });
        out.push(step(lane, Op::Record { event: after }));
        out.push(step(COMPUTE, Op::Wait { event: after }));
    }
    let mut lanes = vec![LaneKind::Compute];
    lanes.extend((first_comm > 1).then_some(LaneKind::Copy));
    lanes.extend((0..groups.len()).map(|g| LaneKind::Comm(g as u32)));
    let buffers = lives(buffers, &mut out, kernels, persistent);
    Body { buffers, lanes, instructions: out, events, arena_bytes: 0 }
}

fn lives(buffers: Vec<Buffer>, instructions: &mut [Instruction], kernels: &[Kernel], persistent: usize) -> Vec<Buffer> {
    let mut spans: Vec<Option<(u32, u32)>> = vec![None; buffers.len()];
    for (i, instruction) in instructions.iter().enumerate() {
        for (slice, _) in instruction.op.touches(|k| accesses(kernels, k)) {
            if let Some(own) = slice.buffer.index().checked_sub(persistent) {
                let span = spans[own].get_or_insert((i as u32, i as u32));
                span.1 = i as u32;
            }
        }
    }
    let mut ids = vec![None; buffers.len()];
    let mut kept = vec![];
    for (own, (mut buffer, span)) in buffers.into_iter().zip(spans).enumerate() {
        if let Some((first, last)) = span {
            buffer.life = Life::Span { first, last };
            ids[own] = Some(BufferId::new(persistent + kept.len()));
            kept.push(buffer);
        }
    }
    for slice in instructions.iter_mut().flat_map(|i| slices_mut(&mut i.op)) {
        if let Some(id) = slice.buffer.index().checked_sub(persistent).and_then(|own| ids[own]) {
            slice.buffer = id;
        }
    }
    kept
}
