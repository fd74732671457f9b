//! Updates in place: a value that ends in a persistent buffer is written there at once where that is safe, and copied
//! there at the end where it is not.

use plan::{Access, BufferId, Instruction, Kernel, Op, Slice};
use rustc_hash::{FxHashMap, FxHashSet};
use target::KernelFacts;

use super::unroll::Unrolled;

pub fn in_place(mut unrolled: Unrolled, kernels: &[Kernel], facts: &[KernelFacts], persistent: usize) -> Unrolled {
    let touched = Touched::of(&unrolled.instructions, kernels);
    let mut renamed: FxHashMap<BufferId, BufferId> = FxHashMap::default();
    let mut taken: FxHashSet<BufferId> = FxHashSet::default();
    let mut copies = vec![];
    for &(value, home) in &unrolled.updates {
        if value.buffer == home {
            continue;
        }
        let whole = value.buffer.index() >= persistent
            && value.offset == 0
            && unrolled.buffers.get(value.buffer.index() - persistent).is_some_and(|b| b.bytes == value.bytes);
        let free = whole && !renamed.contains_key(&value.buffer) && !taken.contains(&home);
        if free && safe(&unrolled.instructions, kernels, facts, &touched, value.buffer, home) {
            renamed.insert(value.buffer, home);
            taken.insert(home);
        } else {
            copies.push((value, home));
        }
    }
    let rename = |slice: &mut Slice| {
        if let Some(&home) = renamed.get(&slice.buffer) {
            slice.buffer = home;
        }
    };
    for instruction in &mut unrolled.instructions {
        slices_mut(&mut instruction.op).into_iter().for_each(rename);
    }
    let place = unrolled.instructions.last().map(|i| (i.lane, i.place));
    for (mut from, home) in copies {
        rename(&mut from);
        let to = Slice { buffer: home, offset: 0, bytes: from.bytes };
        if let Some((lane, place)) = place {
            unrolled.instructions.push(Instruction { lane, place, op: Op::Copy { from, to } });
        }
    }
    unrolled.updates.clear();
    unrolled
}

/// When a buffer is touched, as indices of instructions.
#[derive(Clone, Copy)]
struct Touch {
    first_write: usize,
    writes: usize,
    last_read: Option<usize>,
}

struct Touched(FxHashMap<BufferId, Touch>);

impl Touched {
    fn of(instructions: &[Instruction], kernels: &[Kernel]) -> Self {
        let mut map: FxHashMap<BufferId, Touch> = FxHashMap::default();
        for (i, instruction) in instructions.iter().enumerate() {
            for (slice, access) in instruction.op.slices(|k| accesses(kernels, k)) {
                let none = Touch { first_write: usize::MAX, writes: 0, last_read: None };
                let touch = map.entry(slice.buffer).or_insert(none);
                if access.writes() {
                    touch.first_write = touch.first_write.min(i);
                    touch.writes += 1;
                }
                if access.reads() {
                    touch.last_read = Some(i);
                }
            }
        }
        Self(map)
    }
}

pub fn accesses(kernels: &[Kernel], id: plan::KernelId) -> &[Access] {
    kernels.get(id.index()).map_or(&[], |k| &k.args)
}

/// `value` may be written straight into `home` if one launch writes it whole and nothing reads the old `home` later;
/// that launch itself may read it if its kernel works in place.
fn safe(
    instructions: &[Instruction],
    kernels: &[Kernel],
    facts: &[KernelFacts],
    touched: &Touched,
    value: BufferId,
    home: BufferId,
) -> bool {
    let Some(own) = touched.0.get(&value).filter(|t| t.writes == 1) else { return false };
    let Some(Op::Launch(launch)) = instructions.get(own.first_write).map(|i| &i.op) else { return false };
    if let Some(old) = touched.0.get(&home)
        && (old.writes > 0 || old.last_read.is_some_and(|r| r > own.first_write))
    {
        return false;
    }
    let id = launch.kernel.index();
    let Some((kernel, facts)) = kernels.get(id).zip(facts.get(id)) else { return false };
    let inputs = kernel.args.iter().take_while(|a| **a == Access::Read).count();
    let mut reads = launch.args.iter().enumerate().take(inputs).filter(|(_, s)| s.buffer == home);
    let Some(result) = launch.args.iter().skip(inputs).position(|s| s.buffer == value) else { return false };
    reads.all(|(p, _)| facts.in_place.contains(&(p, result)))
}

pub fn slices_mut(op: &mut Op) -> Vec<&mut Slice> {
    match op {
        Op::Launch(launch) => launch.args.iter_mut().collect(),
        Op::Collect(collect) => collect.from.iter_mut().chain(&mut collect.to).collect(),
        Op::Copy { from, to } => vec![from, to],
        Op::Feed { to, .. } => vec![to],
        Op::Emit { from, .. } => vec![from],
        Op::Record { .. } | Op::Wait { .. } => vec![],
    }
}
