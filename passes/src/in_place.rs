//! `in-place`: a value that ends in a persistent buffer is written there at once where that is safe, and copied there at the
//! end where it is not.

use plan::{Access, BufferId, Op, Phase, Slice};
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
    let mut copies = vec![];
    for update in std::mem::take(&mut program.updates) {
        let (value, home) = (update.value, update.home);
        if value.buffer == home {
            continue;
        }
        let is_whole = !program.is_persistent(value.buffer)
            && value == Slice::whole(value.buffer, program.buffer(value.buffer).bytes);
        let is_free = is_whole && !renamed.contains_key(&value.buffer) && !taken.contains(&home);
        if is_free && is_safe(program, &def_use, value.buffer, home) {
            renamed.insert(value.buffer, home);
            taken.insert(home);
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
    let Some(last) = program.instructions.last().map(|last| last.origin) else { return };
    let origin = Origin { phase: Phase::Update, block: None, microbatch: None, ..last };
    for mut copy in copies {
        rename(&mut copy.value);
        let to = Slice::whole(copy.home, copy.value.bytes);
        program.instructions.push(Instruction::copy(copy.value, to, origin));
    }
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
    let inputs = kernel.args.iter().take_while(|a| **a == Access::Read).count();
    let Some(result) = launch.args.iter().skip(inputs).position(|s| s.buffer == value) else { return false };
    let mut reads = launch.args.iter().enumerate().take(inputs).filter(|(_, s)| s.buffer == home);
    reads.all(|(p, _)| kernel.in_place.contains(&(p as u32, (inputs + result) as u32)))
}
