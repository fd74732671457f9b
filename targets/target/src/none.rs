//! The target `none`: everything up to the plan and no code, for inspection, prediction and scale.

use ir::{Class, Function, Inst, NodeId};

use crate::{EmitError, KernelFacts, Target};

/// Each operator is a kernel of its own.
pub struct NoTarget;

impl Target for NoTarget {
    fn name(&self) -> &str {
        "none"
    }

    fn alignment(&self) -> u64 {
        64
    }

    fn group(&self, function: &Function) -> Vec<Vec<NodeId>> {
        let alone = |(id, node): (NodeId, &ir::Node)| match &node.inst {
            Inst::Op(op) if !matches!(op.class(), Class::Source | Class::View | Class::Collective) => Some(vec![id]),
            _ => None,
        };
        function.nodes.iter().filter_map(alone).collect()
    }

    fn describe(&self, kernel: &Function) -> KernelFacts {
        let mut facts = KernelFacts::counted(kernel);
        // Without kernels nothing overwrites its operand by accident; equal types are taken as updates in place.
        for (r, result) in kernel.result_types().enumerate() {
            let free = |p: &usize| !facts.in_place.iter().any(|(q, _)| q == p);
            let elementwise = kernel.nodes.iter().all(|(_, n)| match &n.inst {
                Inst::Op(op) => op.class() == Class::Elementwise || op.class() == Class::Source,
                _ => true,
            });
            let updates = kernel.results.len() > 1 || elementwise;
            if let Some(p) = kernel.param_types().enumerate().filter(|(_, t)| *t == result).map(|(p, _)| p).find(free)
                && updates
            {
                facts.in_place.push((p, r));
            }
        }
        facts
    }

    fn emit(&self, _: &[(&str, &Function)]) -> Result<Vec<u8>, EmitError> {
        Ok(vec![])
    }
}
