//! `stages`: parts the program that was unrolled for one rank among the ranks of a pipeline.
//!
//! Each instruction gets one stage, where it alone is done. What depends on feeds and counters alone, or on parameters alone,
//! each rank that reads it does for itself. A value that other ranks read is sent to each of them once: activations and
//! their gradients, tied parameters, the sum that clips gradients. On each rank, the work of a stage on a micro-batch is a
//! unit, and units stand in the order of the schedule.

use diag::{Diagnostic, Diagnostics, Span};
use ir::MAX_OPERATORS;
use plan::{BufferId, BufferKind, Emit, Life, Op};
use program::{Instruction, Origin, Pipeline, RankModule, RankProgram, Turn, is_message};
use serde::{Deserialize, Serialize};
use types::Runs;

use super::dependence::Dataflow;
use super::send_recv::{self, Message, Own, Uses};
use super::units::{self, When};
use super::{Grid, StageSchedule, assign};
use crate::ranks::at_once;
use crate::times::Times;
use crate::{Context, ProgramPass};

/// How many ranks form a pipeline, how many stages each has, and in which order they work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stages {
    pub ranks: usize,
    pub chunks: usize,
    pub schedule: &'static StageSchedule,
    /// The directive that asks for it.
    #[serde(skip)]
    pub at: Option<Span>,
}

impl Default for Stages {
    fn default() -> Self {
        Self { ranks: 2, chunks: 1, schedule: StageSchedule::of_chunks(1), at: None }
    }
}

impl ProgramPass for Stages {
    fn run(&self, module: &mut RankModule, cx: &mut Context<'_>) -> Result<(), Diagnostics> {
        let machine = cx.machine();
        let (ranks, axis) = (self.ranks, module.mesh.size("pp"));
        if axis != ranks {
            let message =
                format!("`stages` parts programs among {ranks} ranks, and the axis pp of the mesh has {axis}");
            return Err(Diagnostic::error(message).help(format!("give `stages{{ranks={axis}}}`")).into());
        }
        let times = Times::new(&machine, &module.mesh);
        for program in &mut module.programs {
            if program.runs == Runs::Prepare {
                let what = format!("`{}` prepares values, which a pipeline's ranks cannot do yet", program.name);
                return Err(Diagnostic::error(what).help("compile without --pp").into());
            }
            let [whole] = &program.ranks[..] else {
                return Err(Diagnostic::internal("the program is parted among ranks already").into());
            };
            let (ranks, collectives) = self.part(whole, &program.emits, &times)?;
            (program.places, program.collectives) = (whole.places.sites().len(), collectives);
            program.ranks = ranks;
        }
        module.is_pipeline = true;
        Ok(())
    }
}

impl Stages {
    /// Each stage works on each micro-batch, and each rank lists every tensor that is kept.
    fn check_size(&self, microbatches: usize, kept: usize) -> Result<(), Diagnostics> {
        let product = |factors: [usize; 3]| factors.iter().fold(1u128, |n, f| n.saturating_mul(*f as u128));
        let too_many = |message: String, found: u128| {
            let error = Diagnostic::error(format!("{message} are {found}, at most {MAX_OPERATORS}"));
            Diagnostics::from(error.help("take fewer stages, layers or micro-batches"))
        };
        let (units, lists) = (product([self.ranks, self.chunks, microbatches]), product([self.ranks, kept, 1]));
        if units > MAX_OPERATORS {
            let stages = self.ranks.saturating_mul(self.chunks);
            return Err(too_many(format!("{stages} stages times {microbatches} micro-batches"), units));
        }
        if lists > MAX_OPERATORS {
            let message = format!("{} ranks of a pipeline times {kept} parameters and states", self.ranks);
            return Err(too_many(message, lists));
        }
        Ok(())
    }

    /// The programs of the ranks, and how many collectives they share.
    fn part(
        &self,
        whole: &RankProgram,
        emits: &[Emit],
        times: &Times<'_>,
    ) -> Result<(Vec<RankProgram>, u32), Diagnostics> {
        let &Self { ranks, chunks, schedule, at } = self;
        let flow = &Dataflow::new(whole, emits);
        let grid = Grid { ranks, chunks, microbatches: flow.microbatches };
        let placed = |mut errors: Diagnostics| {
            errors.0 = errors.0.into_iter().map(|e| at.into_iter().fold(e, |e, at| e.at(at, ""))).collect();
            errors
        };
        self.check_size(flow.microbatches, whole.persistent)?;
        let orders = schedule.orders(&grid).map_err(placed)?;
        let timeline = schedule.ideal(&grid)?;
        let layout = &timeline.layout;
        let assigned = assign::assign(flow, &grid, &times.kernels(whole)).map_err(placed)?;
        let whens = units::whens(flow, &assigned, &orders, layout);
        let uses = at_once(0..ranks, |rank| send_recv::uses(flow, &assigned, &whens, (rank, layout)));
        let messages = send_recv::messages(flow, &assigned, &whens, &uses, layout);
        let first = whole.collectives;
        let mut collectives = first + messages.len() as u32;
        let mut shares: Vec<RankProgram> = at_once(uses.iter().enumerate(), |(rank, uses)| {
            let homes = assigned.homes[..whole.persistent].iter();
            let held = homes.map(|home| home.is_none_or(|stage| layout.rank_of[stage] == rank)).collect();
            share(flow, uses, rank, &messages, held)
        });
        for (rank, ((share, uses), units)) in shares.iter_mut().zip(&uses).zip(orders).enumerate() {
            let sends = (first..).zip(&messages).filter(|(_, m)| m.from == rank);
            let settles = sends.filter_map(|(id, m)| Some((id, m.settled(&timeline)?))).collect();
            share.pipeline = Pipeline { rank, units, settles };
            // What several ranks do for themselves, they do in groups of their own.
            for instruction in &mut share.instructions {
                if let Op::Collect(collect) = &mut instruction.op
                    && uses.shared.contains(&collect.id)
                {
                    collect.id = collectives;
                    collectives += 1;
                }
            }
        }
        shares.iter_mut().for_each(|share| share.collectives = collectives);
        Ok((shares, collectives))
    }
}

/// What a rank does; `held` says which persistent buffers it holds.
fn share(flow: &Dataflow<'_>, uses: &Uses, rank: usize, messages: &[Message], held: Vec<bool>) -> RankProgram {
    let whole = flow.program;
    let own = |messages: &&Message| messages.from == rank || messages.to == rank;
    // Of the buffers, those that this rank touches.
    let mut touched = vec![false; flow.buffers()];
    for (slice, _) in uses.own.iter().flat_map(|own| flow.def_use.touches(own.index)) {
        touched[slice.buffer.index()] = true;
    }
    messages.iter().filter(own).flat_map(|m| &m.values).for_each(|value| touched[value.index()] = true);
    let mut ids: Vec<BufferId> = vec![];
    let mut buffers = vec![];
    for (id, buffer) in whole.buffers.iter().enumerate() {
        ids.push(BufferId::new(buffers.len()));
        buffers.extend((id < whole.persistent || touched[id]).then(|| buffer.clone()));
    }

    let mut items: Vec<(When, Instruction)> = Vec::with_capacity(uses.own.len() + messages.len());
    for (id, message) in (whole.collectives..).zip(messages).filter(|(_, m)| own(m)) {
        let sends = message.from == rank;
        for value in message.values.iter().filter(|value| !sends && whole.is_persistent(**value)) {
            // A parameter of another rank has no place among this one's.
            let mut copy = whole.buffer(*value).clone();
            (copy.kind, copy.life) = (BufferKind::Comm, Life::Span { first: 0, last: 0 });
            ids[value.index()] = BufferId::new(buffers.len());
            buffers.push(copy);
        }
        let here: Vec<BufferId> = message.values.iter().map(|value| ids[value.index()]).collect();
        let when = if sends { message.sent } else { message.received };
        let at = when.index.min(flow.len().saturating_sub(1));
        let op = Op::Collect(message.collect(id, flow, sends, &here).into());
        let origin = Origin::at(flow.origin(at).place);
        let (phase, microbatch) = (message.phase, message.microbatch);
        items.push((when, Instruction::new(op, Origin { phase, microbatch, ..origin })));
    }
    items.extend(uses.own.iter().map(|&Own { when, index, phase }| {
        let mut instruction = whole.instructions[index].clone();
        instruction.origin.phase = phase;
        instruction.op.slices_mut().for_each(|slice| slice.buffer = ids[slice.buffer.index()]);
        (when, instruction)
    }));
    items.sort_by_key(|(when, _)| *when);
    // A message is like no other instruction.
    for (at, (_, instruction)) in items.iter_mut().enumerate().filter(|(_, (_, i))| is_message(&i.op)) {
        instruction.origin.site = u32::MAX - at as u32;
    }
    let mut updates = whole.updates.clone();
    updates.retain(|update| held[update.home.index()]);
    updates.iter_mut().for_each(|update| update.value.buffer = ids[update.value.buffer.index()]);
    RankProgram {
        kernels: whole.kernels.clone(),
        buffers,
        persistent: whole.persistent,
        held,
        owner: whole.owner.clone(),
        turns: turns(&whole.turns, &items),
        instructions: items.into_iter().map(|(_, instruction)| instruction).collect(),
        updates,
        once: whole.once.iter().filter(|id| touched[id.index()]).map(|id| ids[id.index()]).collect(),
        blocks: whole.blocks.clone(),
        places: whole.places.clone(),
        ..RankProgram::default()
    }
}

/// Turns as they follow each other on a rank; a unit begins one.
fn turns(old: &[Turn], items: &[(When, Instruction)]) -> Vec<Turn> {
    let mut turns = vec![];
    let mut before = None;
    for (at, (when, _)) in items.iter().enumerate() {
        let turn = old.partition_point(|turn| turn.at <= when.index);
        let here = (when.during, turn);
        let is_unit = before.is_none_or(|(during, _)| during != when.during);
        let is_block = match before {
            Some((_, last)) if !is_unit && last <= turn => old[last..turn].iter().any(|t| t.is_block),
            _ => true,
        };
        if before != Some(here) {
            turns.push(Turn { at, is_block, unit: is_unit.then(|| when.during.number()) });
        }
        before = Some(here);
    }
    turns
}
