//! The assignment of instructions and buffers to stages.
//!
//! Blocks form a chain in the order of their forwards, and code between blocks joins the last block that it depends on. A
//! parameter belongs to the first link of the chain that reads it. The backward of a block belongs to the link of its
//! parameters, any other backward to the link where most of its operands are. The chain is then cut into stages of equal
//! cost, as far as that goes.

use std::cmp::Reverse;

use diag::{Diagnostic, Diagnostics};
use plan::{BufferId, BufferKind, Op, Slice};
use program::Update;
use smallvec::SmallVec;

use super::dependence::{Dataflow, Dependence, Phase};
use super::{Grid, balance};

pub struct Assigned {
    /// By instruction: its stage; none if each rank that needs it executes it for itself.
    pub stages: Vec<Option<usize>>,
    /// By buffer: the stage that writes or holds it; none if each rank has its own.
    pub homes: Vec<Option<usize>>,
}

pub fn assign(flow: &Dataflow<'_>, grid: &Grid, seconds: &[f64]) -> Result<Assigned, Diagnostics> {
    let mut chain = Chain::new(flow);
    chain.forwards();
    chain.others();
    let links = chain.links.max(1);
    let mut costs = vec![0.0; links];
    for (i, link) in chain.link.iter().enumerate() {
        if let (Some(link), Phase::Forward(0) | Phase::Backward(0)) = (link, flow.phases[i]) {
            costs[*link] += seconds[i];
        }
    }
    let begins = balance(&costs, grid.stages()).ok_or_else(|| few(chain.links, grid))?;
    let stage = |link: &Option<usize>| link.map(|link| begins.partition_point(|&begin| begin <= link));
    Ok(Assigned { stages: chain.link.iter().map(stage).collect(), homes: chain.home.iter().map(stage).collect() })
}

fn few(blocks: usize, grid: &Grid) -> Diagnostics {
    let Grid { ranks, chunks, .. } = grid;
    let wish = if *chunks > 1 { format!("--pp {ranks} --virtual-stages {chunks}") } else { format!("--pp {ranks}") };
    let error = Diagnostic::error(format!("{wish} makes {} stages, and the model has {blocks} blocks", grid.stages()));
    let help = match (blocks, chunks) {
        (0 | 1, _) => "leave --pp out".to_owned(),
        (_, 1) => format!("give --pp {}", (1..=blocks).map(|n| n.to_string()).collect::<Vec<_>>().join(", ")),
        _ => format!("--pp times --virtual-stages may be {blocks} at most"),
    };
    let help = format!("a stage is one block of the model at least: {help}");
    error.help(help).into()
}

struct Chain<'w> {
    flow: &'w Dataflow<'w>,
    /// Number of blocks with a forward in a micro-batch.
    links: usize,
    /// By instruction.
    link: Vec<Option<usize>>,
    /// By buffer.
    home: Vec<Option<usize>>,
    /// By buffer: the parameters and moments that a value depends on, if it depends on nothing else.
    roots: Vec<SmallVec<[u32; 2]>>,
    /// By block.
    of_block: Vec<Option<usize>>,
    /// By buffer: whether it is written outside the forward.
    backward: Vec<bool>,
}

impl<'w> Chain<'w> {
    fn new(flow: &'w Dataflow<'w>) -> Self {
        let mut roots: Vec<SmallVec<[u32; 2]>> = vec![SmallVec::new(); flow.buffers()];
        for (i, buffer) in flow.persistent().iter().enumerate() {
            // What is made of a parameter's copy is made of the parameter.
            let of = flow.program.owner[i].map_or(i as u32, |owner| owner.0);
            match buffer.kind {
                BufferKind::State => {}
                BufferKind::Parameter => roots[i].push(of),
                _ => roots[i].push(i as u32),
            }
        }
        for i in (0..flow.len()).filter(|&i| flow.dependences[i] == Dependence::ParamsOnly) {
            let mut of: SmallVec<[u32; 2]> = flow.reads(i).flat_map(|s| roots[s.buffer.index()].clone()).collect();
            of.sort_unstable();
            of.dedup();
            flow.writes(i).for_each(|s| roots[s.buffer.index()].extend(of.iter().copied()));
        }
        let mut backward = vec![false; flow.buffers()];
        for i in (0..flow.len()).filter(|&i| flow.dependences[i] == Dependence::Data) {
            let forward = matches!(flow.phases[i], Phase::Forward(_));
            flow.writes(i).for_each(|s| backward[s.buffer.index()] = !forward);
        }
        Self {
            flow,
            links: 0,
            link: vec![None; flow.len()],
            home: vec![None; flow.buffers()],
            roots,
            of_block: vec![None; flow.program.blocks.len()],
            backward,
        }
    }

    /// Numbers the blocks of each micro-batch, and finds what reads each parameter first.
    fn forwards(&mut self) {
        let flow = self.flow;
        let mut count = (None, 0);
        for i in 0..flow.len() {
            let Phase::Forward(m) = flow.phases[i] else { continue };
            if flow.dependences[i] != Dependence::Data {
                continue;
            }
            if count.0 != Some(m) {
                count = (Some(m), 0);
            }
            let link = match flow.origin(i).block {
                Some(block) => *self.of_block[block as usize].get_or_insert_with(|| {
                    count.1 += 1;
                    count.1 - 1
                }),
                None => self.made(i).unwrap_or_else(|| self.operands(i).max().unwrap_or(0)),
            };
            self.links = self.links.max(count.1);
            self.put(i, link);
            for slice in flow.reads(i) {
                for root in self.roots[slice.buffer.index()].clone() {
                    self.keep(root as usize, link);
                }
            }
        }
        for (block, link) in self.of_block.clone().into_iter().enumerate() {
            for member in &flow.program.blocks[block] {
                link.into_iter().for_each(|link| self.keep(member.index(), link));
            }
        }
        // Moments and copies stay with their parameters.
        for (i, buffer) in flow.persistent().iter().enumerate() {
            let of = flow.program.owner[i].map_or(i, BufferId::index);
            self.home[i] = (buffer.kind != BufferKind::State).then(|| self.home[of].unwrap_or(0));
        }
    }

    fn others(&mut self) {
        let flow = self.flow;
        let mut updated = vec![None; flow.buffers()];
        for &Update { value, home } in &flow.program.updates {
            updated[value.buffer.index()] = self.home[home.index()];
        }
        for (block, members) in flow.program.blocks.iter().enumerate() {
            self.of_block[block] = self.of_block[block].or_else(|| members.iter().find_map(|m| self.home[m.index()]));
        }
        for (i, least) in self.least().into_iter().enumerate() {
            if self.link[i].is_some() || flow.dependences[i] != Dependence::Data {
                continue;
            }
            let link = self.block(i).unwrap_or_else(|| {
                let updates = flow.writes(i).find_map(|s| updated[s.buffer.index()]);
                updates.or_else(|| self.made(i)).unwrap_or_else(|| self.nearest(i)).max(least)
            });
            self.put(i, link);
        }
        // An emit of what every rank has is the first one's, and so is the loss.
        for i in 0..flow.len() {
            if matches!(flow.op(i), Op::Emit { .. }) {
                let made = || flow.reads(i).find_map(|s| self.home[s.buffer.index()]);
                let link = if flow.reports(i) { None } else { made() };
                self.link[i] = Some(link.unwrap_or(0));
            }
        }
    }

    /// The link of the block that an instruction is of.
    fn block(&self, i: usize) -> Option<usize> {
        self.flow.origin(i).block.and_then(|block| self.of_block[block as usize])
    }

    /// By instruction: the last link whose backward depends on it. Backwards run from the end of the chain to its start, so the
    /// instruction cannot belong to an earlier link.
    fn least(&self) -> Vec<usize> {
        let flow = self.flow;
        let mut wanted = vec![0; flow.buffers()];
        let mut least = vec![0; flow.len()];
        for i in (0..flow.len()).rev().filter(|&i| matches!(flow.phases[i], Phase::Backward(_))) {
            let waits = flow.writes(i).map(|s| wanted[s.buffer.index()]).max().unwrap_or(0);
            least[i] = waits.max(self.block(i).unwrap_or(0));
            for slice in flow.reads(i) {
                let wanted = &mut wanted[slice.buffer.index()];
                *wanted = least[i].max(*wanted);
            }
        }
        least
    }

    fn put(&mut self, i: usize, link: usize) {
        self.link[i] = Some(link);
        for slice in self.flow.writes(i) {
            self.home[slice.buffer.index()] = Some(link);
        }
    }

    fn keep(&mut self, buffer: usize, link: usize) {
        let home = &mut self.home[buffer];
        *home = Some(home.map_or(link, |known| known.min(link)));
    }

    /// The link that writes other parts of the same buffer.
    fn made(&self, i: usize) -> Option<usize> {
        self.flow.writes(i).find_map(|s| self.home[s.buffer.index()])
    }

    /// The links that write those operands that depend on feeds.
    fn operands(&self, i: usize) -> impl Iterator<Item = usize> {
        let depends = |buffer: BufferId| self.roots[buffer.index()].is_empty();
        self.flow.reads(i).filter(move |s| depends(s.buffer)).filter_map(|s| self.home[s.buffer.index()])
    }

    fn root(&self, i: usize) -> usize {
        let roots = self.flow.reads(i).flat_map(|s| self.roots[s.buffer.index()].clone());
        roots.filter_map(|root| self.home[root as usize]).min().unwrap_or(0)
    }

    /// The link that writes the largest operand; of equal ones, one of the backward is preferred, then the first in the chain.
    /// Without operands of the backward, the last link that writes an operand.
    fn nearest(&self, i: usize) -> usize {
        let flow = self.flow;
        let depends = |s: &Slice| self.roots[s.buffer.index()].is_empty();
        let operands = flow.reads(i).filter(depends);
        let operands =
            operands.filter_map(|s| Some((s.bytes, self.backward[s.buffer.index()], self.home[s.buffer.index()]?)));
        let operands: SmallVec<[(u64, bool, usize); 8]> = operands.collect();
        let largest = operands.iter().max_by_key(|(bytes, backward, link)| (bytes, backward, Reverse(link)));
        let largest = largest.filter(|_| operands.iter().any(|(_, backward, _)| *backward));
        largest.map(|(_, _, link)| *link).or_else(|| self.operands(i).max()).unwrap_or_else(|| self.root(i))
    }
}
