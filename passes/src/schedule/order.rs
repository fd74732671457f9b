//! The order of instructions: what ranks exchange is issued early enough to travel while compute works, and updates
//! follow their gradients.

use plan::{Body, Instruction, Kernel, Op, Slice};

use super::unroll::Unrolled;
use super::update::accesses;
use super::{Gradients, lanes, lives};
use crate::cost;

/// A place in the new order: beside an instruction of the old one, ahead of it or not. What shares a place keeps the
/// old order.
type Place = (usize, bool);

const AHEAD: bool = false;
const BEHIND: bool = true;

/// Brings the instructions into the order in which they are issued.
///
/// A collective that needs nothing but parameters and state goes to the beginning of the block before its own, so that no
/// more than two blocks of gathered parameters live at once. Any other goes up within its block, as far as its operands
/// allow, until there is enough work to hide it. With streamed gradients, launches that write nothing but
/// persistent buffers, and emits, follow the last instruction that they depend on. If that is a collective, they keep
/// away from it until compute is through with the whole next block.
pub fn arrange(mut unrolled: Unrolled, kernels: &[Kernel], persistent: usize, gradients: Gradients) -> Unrolled {
    let count = persistent + unrolled.buffers.len();
    let ahead = ahead(&unrolled.instructions, kernels, persistent, count);
    // A place of the old order lies in the block of this number, from 1.
    let block = |at: usize| unrolled.blocks.partition_point(|&b| b <= at);
    let begin = |block: usize| unrolled.blocks.get(block.saturating_sub(1)).copied().unwrap_or(usize::MAX);
    // By buffer: the place of the last write and of the last use, and whether a collective wrote it.
    let work = work(&unrolled.instructions, kernels);
    let mut written: Vec<Place> = vec![(0, AHEAD); count];
    let mut touched: Vec<Place> = vec![(0, AHEAD); count];
    let mut collected = vec![false; count];
    let mut places = Vec::with_capacity(unrolled.instructions.len());
    for (i, instruction) in unrolled.instructions.iter().enumerate() {
        let touches = instruction.op.touches(|k| accesses(kernels, k));
        let needs = touches.iter().map(|(s, a)| {
            let id = s.buffer.index();
            if a.writes() { touched[id] } else { written[id] }
        });
        let needs = needs.max().unwrap_or((0, AHEAD));
        let reads = || touches.iter().filter(|(_, a)| a.reads()).map(|(s, _)| s.buffer.index());
        let follows = match instruction.op {
            Op::Launch(_) => touches.iter().all(|(s, a)| !a.writes() || s.buffer.index() < persistent),
            Op::Emit { .. } => true,
            _ => false,
        };
        let wish = if ahead[i] {
            (begin(block(i).saturating_sub(1)), AHEAD)
        } else if let Op::Collect(collect) = &instruction.op {
            let bytes = |slices: &[Slice]| slices.iter().map(|s| s.bytes).sum::<u64>();
            let hidden = work[i].saturating_sub(cost::exchange(bytes(&collect.from).max(bytes(&collect.to))));
            let enough = work.partition_point(|w| *w <= hidden).saturating_sub(1);
            (enough.max(begin(block(i))), AHEAD)
        } else if follows && gradients == Gradients::Streamed {
            let exchanged = reads().filter(|&id| collected[id]).map(|id| written[id].0).max();
            exchanged.map_or(needs, |at| (begin(block(at) + 2), AHEAD))
        } else {
            (i, BEHIND)
        };
        let place = wish.max(needs);
        for (slice, access) in &touches {
            let id = slice.buffer.index();
            touched[id] = touched[id].max(place);
            if access.writes() {
                written[id] = place;
                collected[id] = matches!(instruction.op, Op::Collect(_));
            }
        }
        places.push(place);
    }
    let mut placed: Vec<(Place, Instruction)> = places.into_iter().zip(unrolled.instructions).collect();
    placed.sort_by_key(|(place, _)| *place);
    let begin = |b: &usize| placed.partition_point(|(place, _)| *place < (*b, AHEAD));
    unrolled.blocks = unrolled.blocks.iter().map(begin).collect();
    unrolled.instructions = placed.into_iter().map(|(_, instruction)| instruction).collect();
    unrolled
}

/// By instruction: the FLOPs of all before it.
fn work(instructions: &[Instruction], kernels: &[Kernel]) -> Vec<u64> {
    let mut sum = 0;
    let before = instructions.iter().map(|instruction| {
        let before = sum;
        if let Op::Launch(launch) = &instruction.op {
            sum += kernels.get(launch.kernel.index()).map_or(0, |k| k.flops);
        }
        before
    });
    before.collect()
}

/// By instruction: whether it is a collective that depends on persistent buffers alone, or something that only leads to
/// such collectives.
fn ahead(instructions: &[Instruction], kernels: &[Kernel], persistent: usize, count: usize) -> Vec<bool> {
    let mut known: Vec<bool> = (0..count).map(|id| id < persistent).collect();
    let mut able = Vec::with_capacity(instructions.len());
    for instruction in instructions {
        let touches = instruction.op.touches(|k| accesses(kernels, k));
        let kind = matches!(instruction.op, Op::Launch(_) | Op::Collect(_) | Op::Copy { .. });
        let able_now = kind && touches.iter().all(|(s, a)| if a.reads() { known[s.buffer.index()] } else { true });
        for (slice, _) in touches.iter().filter(|(_, a)| a.writes()) {
            known[slice.buffer.index()] = able_now && slice.buffer.index() >= persistent;
        }
        able.push(able_now);
    }
    let mut wanted = vec![false; count];
    for (instruction, able) in instructions.iter().zip(&mut able).rev() {
        let touches = instruction.op.touches(|k| accesses(kernels, k));
        let leads = || touches.iter().any(|(s, a)| a.writes() && wanted[s.buffer.index()]);
        *able = *able && (matches!(instruction.op, Op::Collect(_)) || leads());
        if *able {
            for (slice, _) in touches.iter().filter(|(s, a)| a.reads() && s.buffer.index() >= persistent) {
                wanted[slice.buffer.index()] = true;
            }
        }
    }
    able
}

/// Puts the instructions on lanes, drops buffers that nothing touches and computes lives.
pub fn close(unrolled: Unrolled, kernels: &[Kernel], persistent: usize) -> Body {
    let Unrolled { buffers, instructions, blocks, .. } = unrolled;
    let lanes::Lanes { kinds, mut instructions, events } =
        lanes::assign(instructions, &blocks, kernels, persistent + buffers.len());
    let buffers = lives::lives(buffers, &mut instructions, kernels, persistent);
    Body { buffers, lanes: kinds, instructions, events, arena_bytes: 0 }
}
