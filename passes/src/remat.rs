//! `remat`: what becomes of values between their forward and their backward: they are kept, computed again, or wait in the
//! host's memory. Moments may be in the host's memory as well.
//!
//! A value that is computed again is made by the same launches of the same operands, so no bit changes and no kernel is
//! added. Decisions are one per tensor and alike for all micro-batches; each is the cheapest for the memory that it frees at
//! the peak (`frontier`).

mod curve;
mod facts;
mod frontier;
mod rewrite;
mod state;

use std::collections::BTreeMap;

use plan::{BufferId, Kept, Op, Way};
use program::{Instruction, RankProgram};
use serde::{Deserialize, Serialize};
use types::Name;

pub use self::facts::{Facts, device_bytes};
pub use self::frontier::Frontier;
pub use self::rewrite::rewrite;
use crate::RankPass;
use crate::ranks::RankContext;

/// What may be done about values that are not needed for long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Remat {
    /// Values may be computed again.
    pub recompute: bool,
    pub activations: Offload,
    /// Moments and master weights.
    pub optimizer: Offload,
    /// What a device may hold; 0 is as little as can be.
    pub memory: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Offload {
    #[default]
    None,
    /// As memory asks for.
    Auto,
    All,
}

impl Remat {
    /// Whether anything may be done.
    pub fn asks(&self) -> bool {
        self.recompute || self.activations != Offload::None || self.optimizer != Offload::None
    }
}

/// Decides by estimates alone; a compilation goes on from there (`memory_search`) until a plan fits that has its offsets.
impl RankPass for Remat {
    fn run(&self, program: &mut RankProgram, cx: &mut RankContext<'_>) {
        let facts = Facts::new(program, cx.alignment, &mut cx.times);
        let rate = cx.times.host_bytes_per_second();
        let memory = i64::try_from(self.memory).unwrap_or(i64::MAX);
        let enough = memory.saturating_sub_unsigned(facts.fixed(program));
        let frontier = Frontier::new(&facts, program, self, rate, enough);
        let step = frontier.steps.iter().position(|step| step.bytes <= enough).unwrap_or(frontier.steps.len() - 1);
        let mut new = rewrite(program, &facts, &frontier.decisions(step));
        new.kept = listed(program, &frontier, step, rate);
        *program = new;
    }
}

/// What was decided, for those who ask what a plan does and why: the largest first. The host's link moves `rate` bytes a
/// second.
pub fn listed(program: &RankProgram, frontier: &Frontier<'_>, step: usize, rate: f64) -> Vec<Kept> {
    let (facts, decisions) = (frontier.facts(), frontier.decisions(step));
    let mut rows: BTreeMap<(Way, Name, plan::PlaceId), (u32, u64, f64)> = BTreeMap::new();
    let mut add = |way: Way, what: Name, place: plan::PlaceId, bytes: u64, seconds: f64| {
        let row = rows.entry((way, what, place)).or_default();
        *row = (row.0 + 1, row.1 + bytes, row.2 + seconds);
    };
    for (i, instruction) in program.instructions.iter().enumerate() {
        let what = || name(instruction, &program.kernels);
        for b in facts.writes(i).map(BufferId::index) {
            let Some((from, to)) = facts.gap(b).filter(|_| b >= facts.persistent && !facts.is_passing[b]) else {
                continue;
            };
            let held = if from <= frontier.peak && frontier.peak <= to { facts.bytes[b] } else { 0 };
            if decisions.host(b).is_some() {
                add(Way::Offloaded, what(), instruction.origin.place, held, 2.0 * facts.bytes[b] as f64 / rate);
            } else if decisions.again(i).is_none() && facts.can_repeat[i] && held > 0 {
                add(Way::Kept, what(), instruction.origin.place, held, facts.seconds[i]);
            }
        }
        if decisions.again(i).is_some() {
            let waits =
                |b: &usize| facts.gap(*b).is_some_and(|(from, to)| from <= frontier.peak && frontier.peak <= to);
            let held = facts.writes(i).map(BufferId::index).filter(waits).map(|b| facts.bytes[b]).sum();
            add(Way::Recomputed, what(), instruction.origin.place, held, facts.seconds[i]);
        }
    }
    for b in (0..facts.persistent).filter(|b| decisions.away[*b]) {
        let user = facts.uses(b).next().and_then(|u| program.instructions.get(u as usize));
        let Some(user) = user else { continue };
        add(
            Way::Offloaded,
            "optimiser state".into(),
            user.origin.place,
            facts.bytes[b],
            2.0 * facts.bytes[b] as f64 / rate,
        );
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
