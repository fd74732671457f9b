//! What becomes of values between their forward and their backward: they are kept, computed again, or wait in the host's memory.
//!
//! All of it is decided on the program as it was written out: a value that is computed again is made by the same launches of
//! the same operands, so no bit changes and no kernel is added. Decisions are one per tensor and alike for all micro-batches;
//! each is the cheapest for the memory that it frees when most is held (`frontier`).

mod curve;
mod facts;
mod frontier;
mod moments;
mod rewrite;
mod state;

use std::collections::BTreeMap;

use plan::{Buffer, Instruction, Kept, Op, Space, Way};
use types::Name;

pub use self::facts::Facts;
pub use self::frontier::Frontier;
pub use self::moments::bring;
use self::state::Decisions;
use super::times::Times;
use super::unroll::{Origins, Unrolled};

/// When a gradient's memory is free again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gradients {
    /// As soon as its update is done, which follows at once, or a block later if ranks sum the gradient meanwhile.
    #[default]
    Streamed,
    /// All are kept until the optimiser starts.
    Resident,
}

/// What may be done about values that are not needed for long.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Keeping {
    pub gradients: Gradients,
    /// Values may be computed again.
    pub recompute: bool,
    pub activations: Offload,
    /// Moments and master weights.
    pub optimizer: Offload,
    /// None is as much as there may be.
    pub room: Option<Room>,
    /// Work is done as early as it stands in the program. What waits for an exchange to hide holds its operands for longer.
    pub eager: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offload {
    #[default]
    None,
    /// As memory asks for.
    Auto,
    All,
}

/// What a device may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub bytes: u64,
    /// What each communicator takes of it.
    pub communicator: u64,
}

impl Keeping {
    pub fn asks(&self) -> bool {
        self.recompute || self.activations != Offload::None || self.optimizer != Offload::None
    }
}

/// What there is beside a program.
pub struct Surroundings<'a, 't> {
    pub persistent: &'a [Buffer],
    pub kernels: &'a [plan::Kernel],
    pub alignment: u64,
    pub times: &'a mut Times<'t>,
}

/// Which instructions do the same for different micro-batches: they have one number.
pub fn sites(origins: &Origins) -> Vec<u32> {
    let (mut microbatch, mut at) = (None, 0);
    let numbers = origins.of.iter().enumerate().map(|(i, origin)| {
        if origin.microbatch != microbatch {
            (microbatch, at) = (origin.microbatch, 0);
        }
        at += 1;
        if microbatch.is_some() { at } else { (origins.of.len() + i) as u32 }
    });
    numbers.collect()
}

/// The program under some of the frontier's decisions.
pub fn rewritten(unrolled: &Unrolled, facts: &Facts, decisions: &Decisions, collects: &mut u32) -> Unrolled {
    rewrite::rewrite(unrolled, facts, decisions, collects)
}

/// The persistent buffers, where decisions put them.
pub fn housed(persistent: &[Buffer], decisions: &Decisions) -> Vec<Buffer> {
    let away = decisions.away.iter().chain(std::iter::repeat(&false));
    let of = |(buffer, away): (&Buffer, &bool)| Buffer {
        space: if *away { Space::Host } else { buffer.space },
        ..buffer.clone()
    };
    persistent.iter().zip(away).map(of).collect()
}

/// What was decided, for those who ask what a plan does and why: the largest first.
pub fn listed(unrolled: &Unrolled, frontier: &Frontier<'_>, step: usize, around: &Surroundings<'_, '_>) -> Vec<Kept> {
    let (facts, decisions) = (frontier.facts(), frontier.decisions(step));
    let rate = around.times.host_bytes_per_second();
    let mut rows: BTreeMap<(Way, Name, plan::PlaceId), (u32, u64, f64)> = BTreeMap::new();
    let mut add = |way: Way, what: Name, place: plan::PlaceId, bytes: u64, seconds: f64| {
        let row = rows.entry((way, what, place)).or_default();
        *row = (row.0 + 1, row.1 + bytes, row.2 + seconds);
    };
    for (i, instruction) in unrolled.instructions.iter().enumerate() {
        let what = || name(instruction, around.kernels);
        for &b in &facts.writes[i] {
            let b = b as usize;
            let Some((from, to)) = facts.gap(b).filter(|_| b >= facts.persistent && !facts.is_passing[b]) else {
                continue;
            };
            let held = if from <= frontier.peak && frontier.peak <= to { facts.bytes[b] } else { 0 };
            if decisions.host(b).is_some() {
                add(Way::Offloaded, what(), instruction.place, held, 2.0 * facts.bytes[b] as f64 / rate);
            } else if decisions.again(i).is_none() && facts.can_repeat[i] && held > 0 {
                add(Way::Kept, what(), instruction.place, held, facts.seconds[i]);
            }
        }
        if decisions.again(i).is_some() {
            let waits = |b: &&u32| {
                facts.gap(**b as usize).is_some_and(|(from, to)| from <= frontier.peak && frontier.peak <= to)
            };
            let held = facts.writes[i].iter().filter(waits).map(|b| facts.bytes[*b as usize]).sum();
            add(Way::Recomputed, what(), instruction.place, held, facts.seconds[i]);
        }
    }
    for b in (0..facts.persistent).filter(|b| decisions.away[*b]) {
        let user = facts.uses[b].first().and_then(|u| unrolled.instructions.get(*u as usize));
        let Some(user) = user else { continue };
        add(Way::Offloaded, "optimiser state".into(), user.place, facts.bytes[b], 2.0 * facts.bytes[b] as f64 / rate);
    }
    let row = |((way, what, place), (count, bytes, seconds)): (_, (u32, u64, f64))| Kept {
        what,
        place,
        way,
        count,
        bytes,
        seconds,
    };
    let mut rows: Vec<Kept> = rows.into_iter().map(row).collect();
    rows.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(b.seconds.total_cmp(&a.seconds)));
    rows
}

fn name(instruction: &Instruction, kernels: &[plan::Kernel]) -> Name {
    match &instruction.op {
        Op::Launch(launch) => kernels.get(launch.kernel.index()).map_or_else(|| "".into(), |k| k.symbol.clone()),
        Op::Collect(collect) => collect.kind.name().into(),
        Op::Feed { .. } => "feed".into(),
        _ => "copy".into(),
    }
}
