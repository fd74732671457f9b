//! Which gathered parameters are in memory when, from the lives of buffers.

use std::collections::{BTreeMap, BTreeSet};

use plan::{BufferId, BufferKind, CollectKind, Life, Op, Plan};

use crate::body;

/// The block that a parameter or its copy belongs to by its name: `blocks.3`, or what stands before and behind all blocks.
pub fn block(parameter: &str) -> String {
    let words: Vec<&str> = parameter.trim_start_matches("working/").split('.').collect();
    let at = words.iter().position(|word| word.parse::<usize>().is_ok());
    at.map_or("what is in no block".into(), |at| words[..=at].join("."))
}

/// The blocks of all parameters that are cut.
pub fn blocks(plan: &Plan) -> BTreeSet<String> {
    let cut = plan
        .manifest
        .parameters
        .iter()
        .filter(|p| p.layout.cuts.iter().any(|cut| cut.axes.iter().any(|axis| axis == "fsdp")));
    cut.map(|p| block(&p.name)).collect()
}

/// By instruction: the blocks of which gathered parameters are in memory.
pub fn live(plan: &Plan) -> Vec<BTreeSet<String>> {
    let body = body(plan);
    let mut live = vec![BTreeSet::new(); body.instructions.len()];
    for (buffer, block) in buffers(plan) {
        let life = body.buffer(&plan.classes[0], buffer).expect("a buffer").life;
        let Life::Span { first, last } = life else { panic!("{buffer} is gathered and stays") };
        for blocks in &mut live[first as usize..=last as usize] {
            blocks.insert(block.clone());
        }
    }
    live
}

/// Buffers of gathered parameters, whole or moved around since, with their blocks.
fn buffers(plan: &Plan) -> BTreeMap<BufferId, String> {
    let persistent = plan.classes[0].persistent.iter().enumerate();
    let parameters = persistent.filter(|(_, b)| b.kind == BufferKind::Parameter);
    let mut cut: BTreeMap<BufferId, String> = parameters.map(|(i, b)| (BufferId::new(i), block(&b.name))).collect();
    let mut gathered = BTreeMap::new();
    for instruction in &body(plan).instructions {
        match &instruction.op {
            Op::Collect(c) if c.kind == CollectKind::AllGather && c.group.iter().any(|axis| axis == "fsdp") => {
                for (from, to) in c.from.iter().zip(&c.to) {
                    if let Some(block) = cut.get(&from.buffer) {
                        gathered.insert(to.buffer, block.clone());
                    }
                }
            }
            // What does no work moves a tensor or changes its type.
            Op::Launch(launch) if plan.kernels[launch.kernel.index()].flops == 0 => {
                let touches = instruction.op.touches(|k| plan.accesses(k));
                let reads: Vec<BufferId> = touches.iter().filter(|(_, a)| a.reads()).map(|(s, _)| s.buffer).collect();
                for known in [&mut cut, &mut gathered] {
                    if let [Some(block)] =
                        reads.iter().map(|id| known.get(id).cloned()).collect::<Vec<_>>()[..].as_ref()
                    {
                        let written = touches.iter().filter(|(_, a)| a.writes()).map(|(s, _)| s.buffer);
                        known.extend(written.map(|id| (id, block.clone())).collect::<Vec<_>>());
                    }
                }
            }
            _ => {}
        }
    }
    gathered
}
