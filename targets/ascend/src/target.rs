//! Ascend as a target: what passes ask it, and its blobs for a whole plan.

use ir::{Class, Function, Inst, NodeId, Op};
use plan::operators::Report;
use plan::{Archive, Blob, BlobKind};
use prost::Message;
use target::{EmitError, KernelFacts, Machine, Target};

use crate::report;
use crate::soc::Soc;
use crate::{check, group, lower};

/// GE and HCCL place tensors on blocks of this size.
const ALIGNMENT: u64 = 512;

pub struct AscendTarget {
    pub soc: &'static Soc,
}

impl Target for AscendTarget {
    fn name(&self) -> &str {
        self.soc.name
    }

    fn alignment(&self) -> u64 {
        ALIGNMENT
    }

    fn group(&self, function: &Function) -> Vec<Vec<NodeId>> {
        group::group(function)
    }

    fn describe(&self, kernel: &Function) -> KernelFacts {
        // What has no lowering says so when it is emitted.
        let workspace = lower::segment(&kernel.name, kernel).map_or(0, |s| s.workspace);
        KernelFacts { workspace, in_place: in_place(kernel), ..KernelFacts::counted(kernel) }
    }

    /// An archive: each kernel's `.air` under its symbol, and the report of what became of its operators.
    fn emit(&self, kernels: &[(&str, &Function)]) -> Result<Vec<u8>, EmitError> {
        let mut blobs = vec![];
        let mut report = Report::default();
        for &(symbol, kernel) in kernels {
            let fail = |reason: String| EmitError::Kernel { kernel: symbol.to_owned(), reason };
            let segment = lower::segment(symbol, kernel).map_err(fail)?;
            check::model(&segment.model).map_err(|findings| {
                fail(findings.iter().take(3).map(ToString::to_string).collect::<Vec<_>>().join("; "))
            })?;
            report.kernels.insert(symbol.to_owned(), segment.rows);
            blobs.push(Blob { name: symbol.into(), kind: BlobKind::Air, bytes: segment.model.encode_to_vec() });
        }
        blobs.push(Blob { name: "lowering".into(), kind: BlobKind::Report, bytes: report::to_bytes(&report) });
        Ok(Archive { blobs }.to_bytes())
    }

    fn machine(&self) -> Machine {
        Machine { cpu: self.soc.version.into(), features: vec![] }
    }
}

/// Results that may be written over the parameter they replace: by operators that read each element before they write
/// it, of a parameter that nothing else in the kernel reads.
fn in_place(kernel: &Function) -> Vec<(usize, usize)> {
    let users = kernel.users();
    let mut pairs: Vec<(usize, usize)> = vec![];
    for (r, &result) in kernel.results.iter().enumerate() {
        let node = &kernel.nodes[result];
        let (maker, item) = match node.inst {
            Inst::Get(i) => (&kernel.nodes[node.args[0]], Some(i)),
            _ => (node, None),
        };
        let Inst::Op(op) = &maker.inst else { continue };
        let read = match item {
            None if op.class() == Class::Elementwise => &maker.args[..],
            // The i-th result replaces the i-th operand.
            Some(i) if matches!(op, Op::Adamw(_)) => maker.args.get(i..=i).unwrap_or(&[]),
            _ => &[],
        };
        let free = |&p: &usize| {
            let param = kernel.params[p];
            let taken = pairs.iter().any(|(q, _)| *q == p) || kernel.results.contains(&param);
            read.contains(&param) && users[param.index()].len() == 1 && kernel.ty(param) == kernel.ty(result) && !taken
        };
        if let Some(p) = (0..kernel.params.len()).find(free) {
            pairs.push((p, r));
        }
    }
    pairs
}
