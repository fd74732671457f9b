//! The order of instructions: what ranks exchange is issued early enough to travel while compute works, and updates
//! follow their gradients.

use plan::{Access, Body, Buffer, Instruction, Kernel, Op, Slice};

use super::buckets::{self, Placed};
use super::keep::{Gradients, Keeping};
use super::lanes::{Communicators, Messages, is_message};
use super::places::Recorder;
use super::times::Times;
use super::unroll::Unrolled;
use super::update::accesses;
use super::{ahead, fill, lanes, lives};

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
/// - A collective that needs nothing but parameters and state goes to the beginning of the block before its own, so that no
///   more than two blocks of gathered parameters live at once.
/// - Any other goes up within its block, as far as its operands allow, until there is enough work to hide it. If it hands
///   on what another brought, for a later block, it goes with the next.
/// - With streamed gradients, launches that write nothing but persistent buffers, and emits, follow the last instruction
///   that they depend on; if a message brings it, they stay where they are. If that is a collective, they keep away from
///   it until compute is through with the whole next block, and so do launches that only move what was exchanged.
/// - Where compute would still wait for other ranks, it does work that was to be done before and that nobody needs yet, if it
///   need not be eager.
/// - Then small collectives of a block travel together.
pub fn arrange(
    unrolled: Unrolled,
    persistent: &[Buffer],
    kernels: &[Kernel],
    keeping: &Keeping,
    times: &mut Times<'_>,
    recorder: &mut Recorder<'_>,
) -> Unrolled {
    let work = times.seconds(&unrolled, persistent);
    let Unrolled { buffers, instructions, mut turns, updates, once } = unrolled;
    let count = persistent.len() + buffers.len();
    let mut order = Order {
        kernels,
        persistent: persistent.len(),
        gradients: keeping.gradients,
        blocks: Blocks(turns.iter().filter(|turn| turn.is_block).map(|turn| turn.at).collect()),
        ahead: ahead::find(&instructions, kernels, persistent.len(), count),
        seconds: instructions.iter().zip(&work).map(|(i, &kernel)| times.exchange_of(i).unwrap_or(kernel)).collect(),
        work: before(work.iter().copied()),
        first_reads: first_reads(&instructions, kernels, count),
        later: vec![],
        written: vec![(0, AHEAD); count],
        touched: vec![(0, AHEAD); count],
        exchanged: vec![false; count],
        received: vec![false; count],
    };
    let mut places = order.places(&instructions);
    let may_wait = |(i, instruction): (usize, &Instruction)| {
        let is_work = matches!(instruction.op, Op::Launch(_)) && !order.ahead[i] && !hands_on(&instruction.op, kernels);
        is_work && !keeping.eager
    };
    let later = fill::find(&fill::Order {
        instructions: &instructions,
        kernels,
        buffers: count,
        places: &places,
        seconds: &order.seconds,
        may_wait: &instructions.iter().enumerate().map(may_wait).collect::<Vec<_>>(),
        blocks: &order.blocks.0,
        units: &turns.iter().filter(|turn| turn.unit.is_some()).map(|turn| turn.at).collect::<Vec<_>>(),
    });
    if later.iter().any(Option::is_some) {
        order.later = later;
        places = order.places(&instructions);
    }
    let mut sequence: Vec<usize> = (0..instructions.len()).collect();
    sequence.sort_by_key(|&i| places[i]);
    let work = before(sequence.iter().map(|&i| work[i]));
    let mut placed = order.placed(instructions, &places);
    placed.sort_by_key(|p| p.place);
    let placed = buckets::join(placed, &work, kernels, count, times, recorder);
    for turn in &mut turns {
        turn.at = placed.partition_point(|p| p.place < (turn.at, AHEAD));
    }
    let instructions = placed.into_iter().map(|p| p.instruction).collect();
    Unrolled { buffers, instructions, turns, updates, once }
}

/// The sum of what comes before each.
fn before(seconds: impl Iterator<Item = f64>) -> Vec<f64> {
    let before = |sum: &mut f64, seconds: f64| Some(std::mem::replace(sum, *sum + seconds));
    seconds.scan(0.0, before).collect()
}

/// What is known of the old order, and of the new one as far as it is made.
struct Order<'a> {
    kernels: &'a [Kernel],
    /// Number of persistent buffers.
    persistent: usize,
    gradients: Gradients,
    blocks: Blocks,
    /// By instruction: whether it can be done ahead, the seconds that it takes on its lane, and those of work before it.
    ahead: Vec<bool>,
    seconds: Vec<f64>,
    work: Vec<f64>,
    /// By buffer: see [`first_reads`].
    first_reads: Vec<(usize, usize)>,
    /// By instruction, if any is: where it fills a wait.
    later: Vec<Option<Place>>,
    /// By buffer: the place of the last write and of the last use, and whether ranks exchanged it and did not go ahead.
    written: Vec<Place>,
    touched: Vec<Place>,
    exchanged: Vec<bool>,
    /// By buffer: whether a message brought it, which is taken early and may be on its way for long.
    received: Vec<bool>,
}

type Touches = [(Slice, Access)];

impl Order<'_> {
    fn begin(&self, block: usize) -> Place {
        (self.blocks.begin(block), AHEAD)
    }

    /// By instruction.
    fn places(&mut self, instructions: &[Instruction]) -> Vec<Place> {
        self.written.fill((0, AHEAD));
        self.touched.fill((0, AHEAD));
        self.exchanged.fill(false);
        self.received.fill(false);
        instructions.iter().enumerate().map(|(i, instruction)| self.place(i, instruction)).collect()
    }

    fn place(&mut self, i: usize, instruction: &Instruction) -> Place {
        let touches = instruction.op.touches(|k| accesses(self.kernels, k));
        let needs = touches.iter().map(|(s, a)| {
            let id = s.buffer.index();
            if a.writes() { self.touched[id] } else { self.written[id] }
        });
        let needs = needs.max().unwrap_or((0, AHEAD));
        let wish = match self.later.get(i).copied().flatten() {
            Some(later) => Some(later),
            None => self.wish(i, &instruction.op, &touches),
        };
        let place = wish.unwrap_or(needs).max(needs);
        let meets = matches!(instruction.op, Op::Collect(_)) && !is_message(&instruction.op);
        for (slice, access) in &touches {
            let id = slice.buffer.index();
            self.touched[id] = self.touched[id].max(place);
            if access.writes() {
                self.written[id] = place;
                self.exchanged[id] = meets && !self.ahead[i];
                self.received[id] = is_message(&instruction.op);
            }
        }
        place
    }

    fn placed(&self, instructions: Vec<Instruction>, places: &[Place]) -> Vec<Placed> {
        let placed = instructions.into_iter().zip(places).enumerate().map(|(i, (instruction, &place))| {
            // What begins with a block finds its company there, anything else until its own block is over.
            let block = self.blocks.of(place.0);
            let until = if place == self.begin(block) { (place.0, BEHIND) } else { self.begin(block + 1) };
            Placed { place, block: self.blocks.of(i), until, instruction }
        });
        placed.collect()
    }

    /// Where an instruction should stand, if its operands are there by then; none: as soon as they are.
    fn wish(&self, i: usize, op: &Op, touches: &Touches) -> Option<Place> {
        let block = self.blocks.of(i);
        let reads = || touches.iter().filter(|(_, a)| a.reads()).map(|(s, _)| s.buffer.index());
        let arrived = reads().filter(|&id| self.exchanged[id]).map(|id| self.written[id].0).max();
        let hands_on = hands_on(op, self.kernels) && reads().all(|id| self.exchanged[id]);
        Some(match (op, arrived.map(|at| self.blocks.of(at))) {
            _ if self.ahead[i] => self.begin(block.saturating_sub(1)),
            // Both sides exchange messages in one order.
            (op, _) if is_message(op) => (i, BEHIND),
            (Op::Collect(_), Some(at)) if hands_on && at < self.blocks.of(self.reader(i, touches)) => {
                self.begin(at + 1)
            }
            (Op::Collect(_), _) => {
                let hidden = self.work[i] - self.seconds[i];
                let enough = self.work.partition_point(|w| *w <= hidden).saturating_sub(1);
                (enough, AHEAD).max(self.begin(block))
            }
            (_, at) if self.gradients == Gradients::Streamed && self.ends(op, touches) => match at {
                // Compute would wait for other ranks before it did what they wait for.
                _ if reads().any(|id| self.received[id]) => (i, BEHIND),
                at => self.begin(at? + 2),
            },
            (_, Some(at)) if hands_on => self.begin(at + 2).min((self.reader(i, touches), AHEAD)),
            _ => (i, BEHIND),
        })
    }

    /// Whether nothing in the step follows from an instruction.
    fn ends(&self, op: &Op, touches: &Touches) -> bool {
        match op {
            Op::Launch(_) => touches.iter().all(|(s, a)| !a.writes() || s.buffer.index() < self.persistent),
            op => matches!(op, Op::Emit { .. }),
        }
    }

    /// Who reads what the instruction writes, or who works with it, if that is in a later block.
    fn reader(&self, i: usize, touches: &Touches) -> usize {
        let written = touches.iter().filter(|(_, a)| a.writes()).map(|(s, _)| self.first_reads[s.buffer.index()]);
        let (any, work) = written.fold((usize::MAX, usize::MAX), |a, b| (a.0.min(b.0), a.1.min(b.1)));
        if self.blocks.of(work) > self.blocks.of(i) { work } else { any }
    }
}

/// Whether an instruction hands on what it reads without work.
fn hands_on(op: &Op, kernels: &[Kernel]) -> bool {
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
        let work = if hands_on(&instruction.op, kernels) { written.min().unwrap_or(i) } else { i };
        for (slice, _) in touches.iter().filter(|(_, a)| a.reads()) {
            let (any, worked) = &mut first[slice.buffer.index()];
            (*any, *worked) = (i, work.min(*worked));
        }
    }
    first
}

/// Puts the instructions on lanes, drops buffers that nothing touches and computes lives.
pub fn close(
    unrolled: Unrolled,
    kernels: &[Kernel],
    persistent: &[Buffer],
    communicators: &mut Communicators,
    messages: &Messages,
) -> Body {
    let Unrolled { buffers, instructions, turns, .. } = unrolled;
    let on_host: Vec<bool> = persistent.iter().chain(&buffers).map(Buffer::on_host).collect();
    let lanes::Lanes { kinds, mut instructions, events, units } =
        lanes::assign(instructions, &turns, kernels, &on_host, communicators, messages);
    let buffers = lives::lives(buffers, &mut instructions, kernels, persistent.len());
    Body { buffers, lanes: kinds, instructions, events, arena_bytes: 0, host_bytes: 0, units, kept: vec![] }
}
