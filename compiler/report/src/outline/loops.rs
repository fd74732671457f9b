//! The loops that a program was written out from: over micro-batches, and over the blocks inside them.

use std::collections::{BTreeMap, HashMap};

use plan::{Instruction, Op, Phase};

#[derive(Default)]
pub struct Loop {
    pub times: usize,
    /// Whether its turns use different parameters.
    pub over_blocks: bool,
    /// The work of all turns, that of the first one first.
    pub work: Vec<usize>,
}

pub struct Loops {
    pub list: Vec<Loop>,
    /// For each instruction, the one that stands for it: the same work in the first turn of its loops, or itself.
    pub first: Vec<usize>,
    /// For each instruction that stands for itself, the loops around it, outermost first.
    pub around: Vec<Vec<usize>>,
}

/// Work of one phase with one place and one kernel is the same in all turns. The optimiser goes over parameters, not over blocks.
pub fn loops(instructions: &[Instruction], phase: &[Phase]) -> Loops {
    let mut first: Vec<usize> = (0..instructions.len()).collect();
    // By block: what it begins with. Blocks that begin alike are turns of one loop.
    let mut begins = HashMap::new();
    let mut known = HashMap::new();
    let mut microbatches: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    let mut blocks: BTreeMap<usize, BTreeMap<u32, Vec<usize>>> = BTreeMap::new();
    for (index, instruction) in instructions.iter().enumerate().filter(|(index, _)| phase[*index] != Phase::Update) {
        let what = match &instruction.op {
            Op::Launch(launch) => Some(launch.kernel),
            Op::Copy { .. } => None,
            _ => continue,
        };
        let (origin, work) = (instruction.origin, (phase[index], instruction.place, what));
        let begin = origin.block.map(|block| *begins.entry(block).or_insert((work, index)));
        first[index] = *known.entry((begin.map(|(work, _)| work), work)).or_insert(index);
        if let Some(microbatch) = origin.microbatch {
            microbatches.entry(microbatch).or_default().push(index);
        }
        if let (Some(block), Some((_, begin))) = (origin.block, begin) {
            blocks.entry(first[begin]).or_default().entry(block).or_default().push(index);
        }
    }
    let count = microbatches.len().max(1);
    let mut list = vec![];
    let mut around = vec![vec![]; instructions.len()];
    let mut add = |times: usize, over_blocks: bool, turns: BTreeMap<u32, Vec<usize>>| {
        let work: Vec<usize> = turns.into_values().flatten().collect();
        if times > 1 {
            work.iter().filter(|&&i| first[i] == i).for_each(|&i| around[i].push(list.len()));
            list.push(Loop { times, over_blocks, work });
        }
    };
    add(count, false, microbatches);
    blocks.into_values().for_each(|turns| add(turns.len().div_ceil(count), true, turns));
    Loops { list, first, around }
}

#[cfg(test)]
mod tests {
    use plan::{KernelId, LaneId, Launch, Origin, PlaceId};

    use super::*;

    /// Launches of a kernel at the place with its number: the number, its block and its micro-batch.
    fn launches(work: &[(u32, Option<u32>, Option<u32>)]) -> Vec<Instruction> {
        let launch = |&(kernel, block, microbatch): &(u32, Option<u32>, Option<u32>)| Instruction {
            lane: LaneId(0),
            place: PlaceId(kernel),
            origin: Origin { phase: Phase::Forward, block, microbatch },
            op: Op::Launch(Launch { kernel: KernelId(kernel), args: vec![], scalars: vec![] }),
        };
        work.iter().map(launch).collect()
    }

    #[test]
    fn blocks_are_turns_of_a_loop_inside_the_loop_over_micro_batches() {
        let turn = |m: u32| {
            let block = |b: u32| [(1, Some(2 * m + b), Some(m)), (2, Some(2 * m + b), Some(m))];
            [&[(0, None, Some(m))][..], &block(0), &block(1)].concat()
        };
        let all = launches(&[turn(0), turn(1)].concat());
        let found = loops(&all, &[Phase::Forward; 10]);
        let drawn: Vec<_> = found.list.iter().map(|l| (l.times, l.over_blocks, l.work.clone())).collect();
        assert_eq!(drawn, [(2, false, (0..10).collect()), (2, true, vec![1, 2, 3, 4, 6, 7, 8, 9])]);
        assert_eq!(found.first, [0, 1, 2, 1, 2, 0, 1, 2, 1, 2]);
        assert_eq!(found.around[..3], [vec![0], vec![0, 1], vec![0, 1]]);
    }

    #[test]
    fn work_outside_of_loops_stands_for_itself() {
        let found = loops(&launches(&[(0, None, None), (1, Some(0), None)]), &[Phase::Forward; 2]);
        assert!(found.list.is_empty());
        assert_eq!(found.first, [0, 1]);
    }
}
