//! What must hold of a module of programs after every pass.
//!
//! - All ids name something: kernels, buffers, the program's feeds and emits, places, lanes and events; all slices lie inside
//!   their buffers.
//! - A program touches no buffer of another residency than its own.
//! - Launches have as many arguments and scalars as their kernels, copies as many bytes on both sides, collectives groups
//!   and sizes that fit the mesh.
//! - A buffer that a rank does not hold is touched by none of its instructions.
//! - Every slice that is read was written before it, unless it is of a persistent buffer.
//! - A launch writes nothing that it reads, but pairs that its kernel computes in place.
//! - Values of updates are as large as their homes may take, and no home is updated twice.
//! - Turns ascend, and the first begins with the first instruction.
//! - Within a rank no two collectives share an id; what one rank sends, another receives: peers and bytes agree.
//! - Before the pass `lanes` there are no events; after it all waits follow their records.
//!
//! That lanes race for nothing and ranks do not wait for one another for ever is the plan verifier's business.

use std::collections::HashMap;
use std::fmt;

use plan::{CollectKind, Life, Op, Slice};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::{Program, RankModule, RankProgram};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Violation {
    /// `train, rank 0, #12`
    pub at: String,
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

/// Enough to see a pattern.
const MOST: usize = 16;

pub fn verify(module: &RankModule) -> Result<(), Vec<Violation>> {
    let mut found: Vec<Violation> = vec![];
    for program in &module.programs {
        for (r, rank) in program.ranks.iter().enumerate() {
            let at = format!("{}, rank {r}", program.name);
            let mut add = |instruction: Option<usize>, message: String| {
                let at = instruction.map_or_else(|| at.clone(), |i| format!("{at}, #{i}"));
                found.push(Violation { at, message });
            };
            whole(module, rank, &mut add);
            instructions(module, program, rank, &mut add);
            if rank.persistent != program.ranks[0].persistent {
                add(None, "has other persistent buffers than rank 0".into());
            }
        }
        messages(&program.ranks, |message| found.push(Violation { at: program.name.to_string(), message }));
        let residencies = module.residencies.len();
        let lives = program.ranks.iter().flat_map(|r| &r.buffers).filter_map(|b| match b.life {
            Life::Resident(id) => Some(id),
            _ => None,
        });
        if let Some(id) = program.residency.into_iter().chain(lives).find(|id| id.index() >= residencies) {
            let message = format!("names {id}, which does not exist");
            found.push(Violation { at: program.name.to_string(), message });
        }
        found.truncate(MOST);
    }
    if found.is_empty() { Ok(()) } else { Err(found) }
}

fn whole(module: &RankModule, rank: &RankProgram, add: &mut impl FnMut(Option<usize>, String)) {
    if rank.kernels != module.kernels {
        add(None, "has other kernels than the module".into());
    }
    if rank.persistent > rank.buffers.len() || rank.held.len() != rank.persistent {
        let (all, held) = (rank.buffers.len(), rank.held.len());
        add(
            None,
            format!(
                "has {all} buffers, {} of them persistent, and says of {held} whether it holds them",
                rank.persistent
            ),
        );
    }
    if rank.owner.len() != rank.persistent || rank.owner.iter().flatten().any(|id| id.index() >= rank.persistent) {
        add(None, "moments or copies point at no parameter".into());
    }
    for (i, buffer) in rank.buffers.iter().enumerate() {
        if buffer.is_persistent() != (i < rank.persistent) {
            add(None, format!("b{i} `{}` is persistent and stands among others, or the other way round", buffer.name));
        }
        if let Some(ty) = buffer.ty.as_ref().filter(|ty| ty.bytes() as u64 > buffer.bytes) {
            add(None, format!("b{i} `{}` has {} bytes, too few for {ty}", buffer.name, buffer.bytes));
        }
    }
    let count = rank.buffers.len();
    let unknown = rank.blocks.iter().flatten().chain(&rank.once).find(|id| id.index() >= count);
    if let Some(id) = unknown {
        add(None, format!("a block or what is made once names {id}, which does not exist"));
    }
    let mut homes = FxHashSet::default();
    for update in &rank.updates {
        let home = rank.buffers[..rank.persistent.min(count)].get(update.home.index());
        if home.is_none_or(|home| home.bytes < update.value.bytes) || !homes.insert(update.home) {
            add(None, format!("the update of {} is no second one of it and fits into it", update.home));
        }
        if let Some(what) = outside(rank, &update.value) {
            add(None, format!("the update of {} {what}", update.home));
        }
    }
    let starts = rank.turns.first().is_none_or(|turn| turn.at == 0);
    let ascend = rank.turns.windows(2).all(|pair| pair[0].at <= pair[1].at);
    let inside = rank.turns.last().is_none_or(|turn| turn.at <= rank.instructions.len());
    if !(starts && ascend && inside) {
        add(None, "turns do not follow one another from the first instruction on".into());
    }
}

fn outside(rank: &RankProgram, slice: &Slice) -> Option<String> {
    let Some(buffer) = rank.buffers.get(slice.buffer.index()) else {
        return Some(format!("touches {}, which does not exist", slice.buffer));
    };
    if slice.offset.checked_add(slice.bytes).is_none_or(|end| end > buffer.bytes) {
        let end = slice.offset.saturating_add(slice.bytes);
        return Some(format!("touches {}[{}..{end}] of {} bytes", slice.buffer, slice.offset, buffer.bytes));
    }
    let missing = rank.held.get(slice.buffer.index()).is_some_and(|held| !held);
    missing.then(|| format!("touches {} `{}`, which this rank does not hold", slice.buffer, buffer.name))
}

fn instructions(
    module: &RankModule,
    program: &Program,
    rank: &RankProgram,
    add: &mut impl FnMut(Option<usize>, String),
) {
    let mut written = Written::default();
    let mut ids = FxHashSet::default();
    let mut recorded = FxHashSet::default();
    for (i, instruction) in rank.instructions.iter().enumerate() {
        let lane = instruction.lane.index();
        if lane >= rank.lanes.len().max(1) {
            add(Some(i), format!("runs on {}, which does not exist", instruction.lane));
        }
        let places = rank.places.sites().len();
        if places > 0 && instruction.origin.place.index() >= places {
            add(Some(i), format!("comes from {}, which does not exist", instruction.origin.place));
        }
        let count = rank.instructions.len();
        if instruction.joins.is_some_and(|joins| joins.until as usize > count || joins.until as usize <= i) {
            add(Some(i), "may wait for others up to an instruction before it, or behind the last".into());
        }
        match &instruction.op {
            Op::Record { event } | Op::Wait { event } if event.0 >= rank.events => {
                add(Some(i), format!("names {event}, which does not exist"));
            }
            Op::Record { event } => _ = recorded.insert(*event),
            Op::Wait { event } if !recorded.contains(event) => {
                add(Some(i), format!("waits for {event} before it is recorded"));
            }
            Op::Collect(collect) if !ids.insert(collect.id) => {
                add(Some(i), format!("has the number c{} of another collective", collect.id));
            }
            _ => {}
        }
        let fault = fault(module, program, rank, &instruction.op).or_else(|| asleep(program, rank, &instruction.op));
        let is_sound = fault.is_none();
        fault.into_iter().for_each(|what| add(Some(i), what));
        let touches = rank.touches(instruction);
        let (mut reads, mut writes): (Vec<Slice>, Vec<Slice>) = (vec![], vec![]);
        for (slice, access) in touches {
            if access.reads() {
                reads.push(slice);
            }
            if access.writes() {
                writes.push(slice);
            }
        }
        for slice in reads.iter().filter(|slice| is_sound && !rank.is_persistent(slice.buffer)) {
            if !written.covers(slice) {
                let name = &rank.buffer(slice.buffer).name;
                add(Some(i), format!("reads {} `{name}`, which nothing has written", slice.buffer));
            }
        }
        writes.iter().for_each(|slice| written.add(slice));
    }
}

/// The bytes that were written so far, as ranges that do not touch one another.
#[derive(Default)]
struct Written(FxHashMap<u32, Vec<(u64, u64)>>);

impl Written {
    fn add(&mut self, slice: &Slice) {
        let ranges = self.0.entry(slice.buffer.0).or_default();
        let (mut from, mut to) = (slice.offset, slice.offset.saturating_add(slice.bytes));
        let first = ranges.partition_point(|(_, end)| *end < from);
        let last = ranges.partition_point(|(begin, _)| *begin <= to);
        if let Some((begin, _)) = ranges.get(first).filter(|_| first < last) {
            from = from.min(*begin);
            to = to.max(ranges[last - 1].1);
        }
        ranges.splice(first..last, [(from, to)]);
    }

    fn covers(&self, slice: &Slice) -> bool {
        let Some(ranges) = self.0.get(&slice.buffer.0) else { return false };
        let at = ranges.partition_point(|(_, end)| *end < slice.offset + slice.bytes);
        ranges.get(at).is_some_and(|(begin, _)| *begin <= slice.offset)
    }
}

/// A buffer of another residency than the program's.
fn asleep(program: &Program, rank: &RankProgram, op: &Op) -> Option<String> {
    let mut slices = op.slices(|k| rank.accesses(k));
    let (slice, _) = slices.find(|(slice, _)| !rank.buffer(slice.buffer).is_there(program.residency))?;
    Some(format!("touches {}, which is of a residency that the program does not need", slice.buffer))
}

fn fault(module: &RankModule, program: &Program, rank: &RankProgram, op: &Op) -> Option<String> {
    let all = |slices: &[Slice]| slices.iter().find_map(|slice| outside(rank, slice));
    match op {
        Op::Launch(launch) => {
            let Some(kernel) = rank.kernels.get(launch.kernel.index()) else {
                return Some(format!("launches {}, which does not exist", launch.kernel));
            };
            let (args, scalars) = (launch.args.len(), launch.scalars.len());
            if kernel.args.len() != args || kernel.scalars as usize != scalars {
                let takes = (kernel.args.len(), kernel.scalars);
                let symbol = &kernel.symbol;
                return Some(format!(
                    "launches `{symbol}` with {args} arguments and {scalars} scalars; it takes {} and {}",
                    takes.0, takes.1
                ));
            }
            all(&launch.args).or_else(|| {
                let written = launch.args.iter().enumerate().filter(|(k, _)| kernel.args[*k].writes());
                let mut clashes = written.flat_map(|(w, to)| {
                    launch.args.iter().enumerate().filter(move |(r, from)| {
                        *r != w
                            && from.buffer == to.buffer
                            && kernel.args[*r].reads()
                            && overlap(from, to)
                            && !kernel.in_place.contains(&(*r as u32, w as u32))
                    })
                });
                clashes.next().map(|(_, s)| format!("`{}` writes over {}, which it reads", kernel.symbol, s.buffer))
            })
        }
        Op::Collect(collect) => {
            plan::collective_fault(&module.mesh, collect).or_else(|| all(&collect.from)).or_else(|| all(&collect.to))
        }
        Op::Copy { from, to } => {
            let sizes = || (from.bytes != to.bytes).then(|| format!("copies {} bytes to {}", from.bytes, to.bytes));
            outside(rank, from).or_else(|| outside(rank, to)).or_else(sizes)
        }
        Op::Feed { feed, to } => match program.feeds.get(feed.index()) {
            Some(_) => outside(rank, to),
            None => Some(format!("takes {feed}, which does not exist")),
        },
        Op::Emit { emit, from } => match program.emits.get(emit.index()) {
            Some(_) => outside(rank, from),
            None => Some(format!("gives {emit}, which does not exist")),
        },
        Op::Record { .. } | Op::Wait { .. } => None,
    }
}

const fn overlap(a: &Slice, b: &Slice) -> bool {
    a.offset < b.offset.saturating_add(b.bytes) && b.offset < a.offset.saturating_add(a.bytes)
}

/// What each message of a pipeline carries, from its sender and to its receiver.
fn messages(ranks: &[RankProgram], mut add: impl FnMut(String)) {
    type End = (i64, Vec<u64>);
    let mut sent: HashMap<u32, (usize, End)> = HashMap::new();
    let bytes = |slices: &[Slice]| slices.iter().map(|s| s.bytes).collect::<Vec<_>>();
    let collects = |rank: usize| {
        ranks[rank].instructions.iter().filter_map(|i| match &i.op {
            Op::Collect(collect) => Some(collect),
            _ => None,
        })
    };
    for rank in 0..ranks.len() {
        for collect in collects(rank) {
            if let CollectKind::Send { peer } = &collect.kind {
                sent.insert(collect.id, (rank, (peer.base, bytes(&collect.from))));
            }
        }
    }
    for rank in 0..ranks.len() {
        for collect in collects(rank) {
            let CollectKind::Receive { peer } = &collect.kind else { continue };
            let want = Some((peer.base as usize, (rank as i64, bytes(&collect.to))));
            if sent.remove(&collect.id) != want {
                add(format!("rank {rank} receives c{} from rank {}, which does not send it so", collect.id, peer.base));
            }
        }
    }
    let mut rest: Vec<_> = sent.into_iter().collect();
    rest.sort_unstable_by_key(|(id, _)| *id);
    for (id, (rank, _)) in rest {
        add(format!("rank {rank} sends c{id}, and nobody receives it"));
    }
}
