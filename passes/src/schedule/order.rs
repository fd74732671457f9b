//! The order of instructions: what ranks exchange is issued early enough to travel while compute works, and updates
//! follow their gradients.

use plan::{Body, Buffer, Instruction, Kernel, Op};

use super::buckets::{self, Placed};
use super::places::Recorder;
use super::times::Times;
use super::unroll::Unrolled;
use super::update::accesses;
use super::{Gradients, ahead, lanes, lives};

/// A place in the new order: beside an instruction of the old one, ahead of it or not. What shares a place keeps the
/// old order.
pub type Place = (usize, bool);

pub const AHEAD: bool = false;
pub const BEHIND: bool = true;

/// Where blocks begin in the old order.
struct Blocks(Vec<usize>);

impl Blocks {
    /// The block that a place of the old order lies in, from 1.
    fn of(&self, at: usize) -> usize {
        self.0.partition_point(|&b| b <= at)
    }

    fn begin(&self, block: usize) -> usize {
        self.0.get(block.saturating_sub(1)).copied().unwrap_or(usize::MAX)
    }
}

/// Brings the instructions into the order in which they are issued.
///
/// A collective that needs nothing but parameters and state goes to the beginning of the block before its own, so that no
/// more than two blocks of gathered parameters live at once. Any other goes up within its block, as far as its operands
/// allow, until there is enough work to hide it. With streamed gradients, launches that write nothing but
/// persistent buffers, and emits, follow the last instruction that they depend on. If that is a collective, they keep
/// away from it until compute is through with the whole next block, and so do launches that only move what was exchanged.
/// Then small collectives of a block travel together.
pub fn arrange(
    unrolled: Unrolled,
    persistent: &[Buffer],
    kernels: &[Kernel],
    gradients: Gradients,
    times: &mut Times<'_>,
    places: &mut Recorder<'_>,
) -> Unrolled {
    let Unrolled { buffers, instructions, mut turns, updates } = unrolled;
    let blocks = Blocks(turns.iter().filter(|turn| turn.is_block).map(|turn| turn.at).collect());
    let count = persistent.len() + buffers.len();
    let ahead = ahead::find(&instructions, kernels, persistent.len(), count);
    let buffer = |id: usize| match id.checked_sub(persistent.len()) {
        None => persistent.get(id),
        Some(own) => buffers.get(own),
    };
    let work = times.work(instructions.iter(), buffer);
    let first_reads = first_reads(&instructions, kernels, count);
    // By buffer: the place of the last write and of the last use, and whether ranks exchanged it and did not go ahead.
    let mut written: Vec<Place> = vec![(0, AHEAD); count];
    let mut touched: Vec<Place> = vec![(0, AHEAD); count];
    let mut exchanged = vec![false; count];
    let mut placed = Vec::with_capacity(instructions.len());
    for (i, instruction) in instructions.into_iter().enumerate() {
        let touches = instruction.op.touches(|k| accesses(kernels, k));
        let needs = touches.iter().map(|(s, a)| {
            let id = s.buffer.index();
            if a.writes() { touched[id] } else { written[id] }
        });
        let needs = needs.max().unwrap_or((0, AHEAD));
        let reads = || touches.iter().filter(|(_, a)| a.reads()).map(|(s, _)| s.buffer.index());
        let arrived = || reads().filter(|&id| exchanged[id]).map(|id| written[id].0).max();
        let passes_on = passes_on(&instruction.op, kernels) && reads().all(|id| exchanged[id]);
        let follows = match instruction.op {
            Op::Launch(_) => touches.iter().all(|(s, a)| !a.writes() || s.buffer.index() < persistent.len()),
            Op::Emit { .. } => true,
            _ => false,
        };
        // Who reads it, or who works with it, if that is in a later block.
        let reader = || {
            let written = touches.iter().filter(|(_, a)| a.writes()).map(|(s, _)| first_reads[s.buffer.index()]);
            let (any, work) = written.fold((usize::MAX, usize::MAX), |a, b| (a.0.min(b.0), a.1.min(b.1)));
            if blocks.of(work) > blocks.of(i) { work } else { any }
        };
        let begin = |block: usize| (blocks.begin(block), AHEAD);
        let block = blocks.of(i);
        let wish = match (&instruction.op, arrived().map(|at| blocks.of(at))) {
            _ if ahead[i] => begin(block.saturating_sub(1)),
            (Op::Collect(_), Some(at)) if passes_on && at < blocks.of(reader()) => begin(at + 1),
            (Op::Collect(collect), _) => {
                let hidden = work[i] - times.exchange(collect);
                let enough = work.partition_point(|w| *w <= hidden).saturating_sub(1);
                (enough, AHEAD).max(begin(block))
            }
            (_, at) if follows && gradients == Gradients::Streamed => at.map_or(needs, |at| begin(at + 2)),
            (_, Some(at)) if passes_on => begin(at + 2).min((reader(), AHEAD)),
            _ => (i, BEHIND),
        };
        let place = wish.max(needs);
        for (slice, access) in &touches {
            let id = slice.buffer.index();
            touched[id] = touched[id].max(place);
            if access.writes() {
                written[id] = place;
                exchanged[id] = matches!(instruction.op, Op::Collect(_)) && !ahead[i];
            }
        }
        // What begins with a block finds its company there, anything else until its own block is over.
        let until = if place == begin(blocks.of(place.0)) { (place.0, BEHIND) } else { begin(blocks.of(place.0) + 1) };
        placed.push(Placed { place, block, until, instruction });
    }
    placed.sort_by_key(|p| p.place);
    let work = times.work(placed.iter().map(|p| &p.instruction), buffer);
    let placed = buckets::join(placed, &work, kernels, count, times, places);
    for turn in &mut turns {
        turn.at = placed.partition_point(|p| p.place < (turn.at, AHEAD));
    }
    let instructions = placed.into_iter().map(|p| p.instruction).collect();
    Unrolled { buffers, instructions, turns, updates }
}

/// Whether an instruction hands on what it reads without work.
fn passes_on(op: &Op, kernels: &[Kernel]) -> bool {
    match op {
        Op::Launch(launch) => kernels.get(launch.kernel.index()).is_some_and(|k| k.flops == 0),
        op => matches!(op, Op::Collect(_)),
    }
}

/// By buffer: the first instruction that reads it, and the first to work with it, wherever it was handed on to until then.
fn first_reads(instructions: &[Instruction], kernels: &[Kernel], count: usize) -> Vec<(usize, usize)> {
    let mut first = vec![(usize::MAX, usize::MAX); count];
    for (i, instruction) in instructions.iter().enumerate().rev() {
        let touches = instruction.op.touches(|k| accesses(kernels, k));
        let written = touches.iter().filter(|(_, a)| a.writes()).map(|(s, _)| first[s.buffer.index()].1);
        let work = if passes_on(&instruction.op, kernels) { written.min().unwrap_or(i) } else { i };
        for (slice, _) in touches.iter().filter(|(_, a)| a.reads()) {
            let (any, worked) = &mut first[slice.buffer.index()];
            (*any, *worked) = (i, work.min(*worked));
        }
    }
    first
}

/// Puts the instructions on lanes, drops buffers that nothing touches and computes lives.
pub fn close(unrolled: Unrolled, kernels: &[Kernel], persistent: usize) -> Body {
    let Unrolled { buffers, instructions, turns, .. } = unrolled;
    let lanes::Lanes { kinds, mut instructions, events } =
        lanes::assign(instructions, &turns, kernels, persistent + buffers.len());
    let buffers = lives::lives(buffers, &mut instructions, kernels, persistent);
    Body { buffers, lanes: kinds, instructions, events, arena_bytes: 0 }
}
