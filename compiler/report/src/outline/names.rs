//! The parameters that an instruction is about: those it reads, gathered or cast or as they are, or whose gradient it makes.

use std::collections::BTreeSet;
use std::rc::Rc;

use plan::{Body, BufferKind, Class, Op};

use super::flow::Read;

/// For each instruction its parameters, and whether what it gives is made of parameters alone.
pub fn parameters(class: &Class, body: &Body, reads: &[Vec<Read>]) -> (Vec<Vec<String>>, Vec<bool>) {
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
            if let Some(name) = body.buffer(class, slice.buffer).and_then(|b| b.name.strip_prefix("grad/")) {
                used.insert(name.to_owned());
            }
        }
        if alone && !used.is_empty() {
            made[index] = Some(Rc::new(used.clone()));
        }
        out.push(used.into_iter().collect());
    }
    (out, made.iter().map(Option::is_some).collect())
}
