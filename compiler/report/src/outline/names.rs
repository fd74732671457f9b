//! The parameters that an instruction is about: those it reads, gathered or cast or as they are, or whose gradient it makes.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use plan::{Body, BufferId, BufferKind, Class, Op, Plan, Program};
use types::Name;

use super::flow::Read;

/// By buffer that gradients are given from: the parameter.
pub fn gradients<'p>(plan: &'p Plan, program: &Program, body: &Body) -> BTreeMap<BufferId, &'p Name> {
    let given = body.instructions.iter().filter_map(|i| {
        let Op::Emit { emit, from } = i.op else { return None };
        let of = program.emits.get(emit.index())?.of?;
        Some((from.buffer, &plan.manifest.parameters.get(of.index())?.name))
    });
    given.collect()
}

/// For each instruction its parameters, and whether what it gives is made of parameters alone.
pub fn parameters(
    class: &Class,
    body: &Body,
    gradients: &BTreeMap<BufferId, &Name>,
    reads: &[Vec<Read>],
) -> (Vec<Vec<String>>, Vec<bool>) {
    let mut made: Vec<Option<Rc<BTreeSet<String>>>> = vec![None; reads.len()];
    let mut out = Vec::with_capacity(reads.len());
    for (index, (instruction, reads)) in body.instructions.iter().zip(reads).enumerate() {
        let mut used = BTreeSet::new();
        let mut alone = !reads.is_empty();
        for read in reads {
            match read.writer {
                Some(writer) => match &made[writer] {
                    Some(names) => used.extend(names.iter().cloned()),
                    None => alone = false,
                },
                None => match class.persistent.get(read.slice.buffer.index()) {
                    Some(b) if b.kind == BufferKind::Parameter => {
                        used.insert(b.name.to_string());
                    }
                    _ => alone = false,
                },
            }
        }
        let gives: &[plan::Slice] = match &instruction.op {
            Op::Launch(launch) => &launch.args,
            Op::Collect(collect) => &collect.to,
            _ => &[],
        };
        for slice in gives.iter().filter(|s| !reads.iter().any(|r| r.slice == **s)) {
            used.extend(gradients.get(&slice.buffer).map(ToString::to_string));
        }
        if alone && !used.is_empty() {
            made[index] = Some(Rc::new(used.clone()));
        }
        out.push(used.into_iter().collect());
    }
    (out, made.iter().map(Option::is_some).collect())
}
