//! A target whose kernels change a parameter where it lies, wherever those of `none` may: one argument for both.

use ir::{Function, NodeId};
use target::{EmitError, KernelFacts, NoTarget, Target};

pub struct Overwriting;

impl Target for Overwriting {
    fn name(&self) -> &str {
        NoTarget.name()
    }

    fn alignment(&self) -> u64 {
        NoTarget.alignment()
    }

    fn group(&self, function: &Function) -> Vec<Vec<NodeId>> {
        NoTarget.group(function)
    }

    fn describe(&self, kernel: &Function) -> KernelFacts {
        let facts = NoTarget.describe(kernel);
        KernelFacts { in_place: vec![], overwrites: facts.in_place, ..facts }
    }

    fn emit(&self, _: &[(&str, &Function)]) -> Result<Vec<u8>, EmitError> {
        Ok(vec![])
    }
}
