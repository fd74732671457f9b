//! `hide-comm`: the order of instructions. What ranks exchange is issued early enough to travel while compute works, and
//! updates follow their gradients.

mod fill_waits;

use clap::ValueEnum;
use plan::{Access, CollectKind, Op, Slice};
use program::{DefUse, Instruction, Joins, RankProgram, Turn, is_message};
use serde::{Deserialize, Serialize};

use crate::RankPass;
use crate::prefetch::params_only;
use crate::ranks::RankContext;
use crate::times::Times;

/// When a gradient's memory is free again.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gradients {
    /// As soon as its update is done, which follows at once, or a block later if ranks sum the gradient meanwhile.
    #[default]
    Streamed,
    /// All are kept until the optimiser starts.
    Resident,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HideComm {
    pub gradients: Gradients,
    /// Do not delay compute to hide communication: delayed work keeps its operands alive and costs memory.
    pub eager: bool,
}

impl RankPass for HideComm {
    fn run(&self, program: &mut RankProgram, cx: &mut RankContext<'_>) {
        hide_comm(program, self, &mut cx.times);
    }
}

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
/// - Any other goes up within its block, as far as its operands allow, until there is enough work to hide it. If it only
///   forwards another collective's result to a later block, it is issued with the following block.
/// - With streamed gradients, launches that write nothing but persistent buffers, and emits, follow the last instruction
///   that they depend on; if that is the receipt of a message, they stay where they are. If it is a collective, they stand
///   behind the whole next block, and so do launches that only move what was exchanged.
/// - Where compute would still wait for other ranks, it does earlier work that nobody needs yet (`fill_waits`), unless it is
///   told to be eager.
///
/// Small collectives are marked with how long they may wait for others: `bucket` joins them.
pub fn hide_comm(program: &mut RankProgram, options: &HideComm, times: &mut Times<'_>) {
    let def_use = program.def_use();
    let kernels = times.kernels(program);
    let instructions = &program.instructions;
    let seconds = instructions.iter().zip(&kernels).map(|(i, &kernel)| times.exchange_of(i).unwrap_or(kernel));
    let count = program.buffers.len();
    let mut order = Order {
        def_use: &def_use,
        instructions,
        persistent: program.persistent,
        gradients: options.gradients,
        blocks: Blocks(program.turns.iter().filter(|turn| turn.is_block).map(|turn| turn.at).collect()),
        params_only: params_only(program, &def_use),
        seconds: seconds.collect(),
        work: before(kernels.iter().copied()),
        forwards: instructions.iter().map(|i| forwards(program, &i.op)).collect(),
        first_reads: vec![],
        later: vec![],
        written: vec![(0, AHEAD); count],
        touched: vec![(0, AHEAD); count],
        exchanged: vec![false; count],
        received: vec![false; count],
    };
    order.first_reads = first_reads(&def_use, &order.forwards);
    let mut places = order.places();
    let may_wait = |(i, instruction): (usize, &Instruction)| {
        matches!(instruction.op, Op::Launch(_)) && !order.params_only[i] && !order.forwards[i] && !options.eager
    };
    let later = fill_waits::find(&fill_waits::Order {
        instructions,
        def_use: &def_use,
        places: &places,
        seconds: &order.seconds,
        may_wait: &instructions.iter().enumerate().map(may_wait).collect::<Vec<_>>(),
        blocks: &order.blocks.0,
        units: &program.turns.iter().filter(|turn| turn.unit.is_some()).map(|turn| turn.at).collect::<Vec<_>>(),
    });
    if later.iter().any(Option::is_some) {
        order.later = later;
        places = order.places();
    }
    let mut sequence: Vec<usize> = (0..places.len()).collect();
    sequence.sort_by_key(|&i| places[i]);
    let position = |place: Place| sequence.partition_point(|&i| places[i] < place);
    let joins = |i: &usize| match &instructions[*i].op {
        Op::Collect(collect) if joins(&collect.kind) => {
            let (block, until) = (order.blocks.of(*i) as u32, position(order.until(places[*i])) as u32);
            Some(Joins { block, until })
        }
        _ => None,
    };
    let joins: Vec<Option<Joins>> = sequence.iter().map(joins).collect();
    let turns = program.turns.iter().map(|turn| Turn { at: position((turn.at, AHEAD)), ..*turn }).collect();
    let mut old: Vec<Option<Instruction>> = std::mem::take(&mut program.instructions).into_iter().map(Some).collect();
    let new = sequence.iter().zip(joins).filter_map(|(&i, joins)| Some(Instruction { joins, ..old[i].take()? }));
    program.instructions = new.collect();
    program.turns = turns;
}

/// Whether several of a kind may travel as one.
const fn joins(kind: &CollectKind) -> bool {
    matches!(
        kind,
        CollectKind::AllReduce(_) | CollectKind::AllGather | CollectKind::ReduceScatter(_) | CollectKind::AllToAll
    )
}

/// The sum of what comes before each.
pub fn before(seconds: impl Iterator<Item = f64>) -> Vec<f64> {
    let before = |sum: &mut f64, seconds: f64| Some(std::mem::replace(sum, *sum + seconds));
    seconds.scan(0.0, before).collect()
}

/// What is known of the old order, and of the new one as far as it is made.
struct Order<'a> {
    def_use: &'a DefUse,
    instructions: &'a [Instruction],
    /// Number of persistent buffers.
    persistent: usize,
    gradients: Gradients,
    blocks: Blocks,
    /// By instruction: whether it depends on parameters only, the seconds that it takes on its lane, and those of work
    /// before it.
    params_only: Vec<bool>,
    seconds: Vec<f64>,
    work: Vec<f64>,
    /// By instruction: see [`forwards`].
    forwards: Vec<bool>,
    /// By buffer: see [`first_reads`].
    first_reads: Vec<(usize, usize)>,
    /// By instruction, if any is: where it fills a wait.
    later: Vec<Option<Place>>,
    /// By buffer: the place of the last write and of the last use, and whether it was exchanged between ranks by a
    /// collective that does not depend on parameters only.
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

    /// Up to where a collective at a place may wait for others: what begins with a block finds its company there, anything
    /// else until its own block is over.
    fn until(&self, place: Place) -> Place {
        let block = self.blocks.of(place.0);
        if place == self.begin(block) { (place.0, BEHIND) } else { self.begin(block + 1) }
    }

    /// By instruction.
    fn places(&mut self) -> Vec<Place> {
        self.written.fill((0, AHEAD));
        self.touched.fill((0, AHEAD));
        self.exchanged.fill(false);
        self.received.fill(false);
        (0..self.instructions.len()).map(|i| self.place(i)).collect()
    }

    fn place(&mut self, i: usize) -> Place {
        let (touches, op) = (self.def_use.touches(i), &self.instructions[i].op);
        let needs = touches.iter().map(|(s, a)| {
            let id = s.buffer.index();
            if a.writes() { self.touched[id] } else { self.written[id] }
        });
        let needs = needs.max().unwrap_or((0, AHEAD));
        let preferred = match self.later.get(i).copied().flatten() {
            Some(later) => Some(later),
            None => self.preferred(i, op, touches),
        };
        let place = preferred.unwrap_or(needs).max(needs);
        let meets = matches!(op, Op::Collect(_)) && !is_message(op);
        for (slice, access) in touches {
            let id = slice.buffer.index();
            self.touched[id] = self.touched[id].max(place);
            if access.writes() {
                self.written[id] = place;
                self.exchanged[id] = meets && !self.params_only[i];
                self.received[id] = is_message(op);
            }
        }
        place
    }

    /// Where an instruction should stand, if its operands are there by then; none: as soon as they are.
    fn preferred(&self, i: usize, op: &Op, touches: &Touches) -> Option<Place> {
        let block = self.blocks.of(i);
        let reads = || touches.iter().filter(|(_, a)| a.reads()).map(|(s, _)| s.buffer.index());
        let arrived = reads().filter(|&id| self.exchanged[id]).map(|id| self.written[id].0).max();
        let forwards = self.forwards[i] && reads().all(|id| self.exchanged[id]);
        Some(match (op, arrived.map(|at| self.blocks.of(at))) {
            _ if self.params_only[i] => self.begin(block.saturating_sub(1)),
            // Both sides exchange messages in one order.
            (op, _) if is_message(op) => (i, BEHIND),
            (Op::Collect(_), Some(at)) if forwards && at < self.blocks.of(self.reader(i, touches)) => {
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
            (_, Some(at)) if forwards => self.begin(at + 2).min((self.reader(i, touches), AHEAD)),
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

/// Whether an instruction passes on what it reads without work.
fn forwards(program: &RankProgram, op: &Op) -> bool {
    match op {
        Op::Launch(launch) => program.kernels.get(launch.kernel.index()).is_some_and(|k| k.flops == 0),
        op => matches!(op, Op::Collect(_)),
    }
}

/// By buffer: the first instruction that reads it, and the first to work with it, wherever it was passed on to until then.
fn first_reads(def_use: &DefUse, forwards: &[bool]) -> Vec<(usize, usize)> {
    let mut first = vec![(usize::MAX, usize::MAX); def_use.buffers()];
    for i in (0..def_use.len()).rev() {
        let written = def_use.writes(i).map(|s| first[s.buffer.index()].1);
        let work = if forwards[i] { written.min().unwrap_or(i) } else { i };
        for slice in def_use.reads(i) {
            let (any, worked) = &mut first[slice.buffer.index()];
            (*any, *worked) = (i, work.min(*worked));
        }
    }
    first
}
