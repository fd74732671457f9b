//! `in-place`: a value that ends in a persistent buffer is written there at once where that is safe, and copied there at the
//! end where it is not.

use plan::{BufferId, Op, Phase, Slice};
use program::{DefUse, Instruction, Origin, RankProgram};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

use crate::RankPass;
use crate::ranks::RankContext;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InPlace {}

impl RankPass for InPlace {
    fn run(&self, program: &mut RankProgram, _: &mut RankContext<'_>) {
        in_place(program);
    }
}

pub fn in_place(program: &mut RankProgram) {
    let def_use = program.def_use();
    let mut renamed: FxHashMap<BufferId, BufferId> = FxHashMap::default();
    let mut taken: FxHashSet<BufferId> = FxHashSet::default();
    let (mut copies, mut dropped) = (vec![], FxHashSet::default());
    for update in std::mem::take(&mut program.updates) {
        let (value, home) = (update.value, update.home);
        if value.buffer == home {
            continue;
        }
        let is_whole = !program.is_persistent(value.buffer)
            && value == Slice::whole(value.buffer, program.buffer(value.buffer).bytes);
        let is_free = is_whole && !renamed.contains_key(&value.buffer) && !taken.contains(&home);
        let changed = if is_free { changed_rows(program, &def_use, value.buffer, home) } else { vec![] };
        if !changed.is_empty() || is_free && is_safe(program, &def_use, value.buffer, home) {
            taken.insert(home);
            renamed.insert(value.buffer, home);
            for (copy, version) in changed {
                renamed.insert(version, home);
                dropped.insert(copy);
            }
        } else {
            copies.push(update);
        }
    }
    let rename = |slice: &mut Slice| {
        if let Some(&home) = renamed.get(&slice.buffer) {
            slice.buffer = home;
        }
    };
    program.instructions.iter_mut().flat_map(|i| i.op.slices_mut()).for_each(rename);
    remove(program, &dropped);
    let Some(last) = program.instructions.last().map(|last| last.origin) else { return };
    let origin = Origin { phase: Phase::Update, block: None, microbatch: None, ..last };
    for mut copy in copies {
        rename(&mut copy.value);
        let to = Slice::whole(copy.home, copy.value.bytes);
        program.instructions.push(Instruction::copy(copy.value, to, origin));
    }
}

/// Takes copies of a buffer to itself out, and moves turns and what refers to instructions along.
fn remove(program: &mut RankProgram, dropped: &FxHashSet<usize>) {
    if dropped.is_empty() {
        return;
    }
    let before = |at: usize| at - dropped.iter().filter(|d| **d < at).count();
    program.turns.iter_mut().for_each(|turn| turn.at = before(turn.at));
    let joins = program.instructions.iter_mut().filter_map(|i| i.joins.as_mut());
    joins.for_each(|joins| joins.until = before(joins.until as usize) as u32);
    let mut index = 0;
    program.instructions.retain(|_| {
        index += 1;
        !dropped.contains(&(index - 1))
    });
}

/// A launch that changes rows of a copy of `home` may change `home` itself if nothing reads the old value behind the copy;
/// and so may one that changes rows of a copy of what that launch made. Gives the copies, each with the buffer it makes, or
/// none.
fn changed_rows(program: &RankProgram, def_use: &DefUse, value: BufferId, home: BufferId) -> Vec<(usize, BufferId)> {
    let mut copies = vec![];
    let mut version = value;
    while version != home {
        let mut writers = def_use.writers(version);
        let (Some(copy), Some(launch), None) = (writers.next(), writers.next(), writers.next()) else { return vec![] };
        let Op::Copy { from, to } = &program.instructions[copy].op else { return vec![] };
        let is_launch = matches!(program.instructions[launch].op, Op::Launch(_));
        let is_whole = to.buffer == version && from.offset == 0 && to.offset == 0;
        let is_known = from.buffer == home || !program.is_persistent(from.buffer);
        // Another argument of the launch that reads the older version would see it change.
        let is_last = def_use.readers(from.buffer).next_back() == Some(copy);
        if !is_launch || !is_whole || !is_known || !is_last || copy > launch || copies.iter().any(|(c, _)| *c == copy) {
            return vec![];
        }
        copies.push((copy, version));
        version = from.buffer;
    }
    if def_use.writers(home).next().is_some() { vec![] } else { copies }
}

/// `value` may be written straight into `home` if one launch writes it whole and nothing reads the old `home` later;
/// that launch itself may read it if its kernel works in place.
fn is_safe(program: &RankProgram, def_use: &DefUse, value: BufferId, home: BufferId) -> bool {
    let Some(maker) = def_use.maker(value) else { return false };
    let Op::Launch(launch) = &program.instructions[maker].op else { return false };
    if def_use.writers(home).next().is_some() || def_use.readers(home).next_back().is_some_and(|last| last > maker) {
        return false;
    }
    let Some(kernel) = program.kernels.get(launch.kernel.index()) else { return false };
    let args = || launch.args.iter().zip(&kernel.args).enumerate();
    let Some((written, _)) = args().find(|(_, (s, access))| s.buffer == value && access.writes()) else { return false };
    let mut reads = args().filter(|(_, (s, access))| s.buffer == home && access.reads());
    reads.all(|(p, _)| kernel.in_place.contains(&(p as u32, written as u32)))
}
