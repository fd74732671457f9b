//! The kernels of a plan: kernel functions of the graph with what the target says of each.

use ir::{Function, FunctionKind, Id, Module};
use plan::{Access, Kernel};
use target::KernelFacts;

/// The kernel functions in the order of the plan's kernels.
pub fn kernels(module: &Module) -> impl Iterator<Item = (Id<Function>, &Function)> {
    module.functions.iter().filter(|(_, f)| f.kind == FunctionKind::Kernel)
}

/// The results that have an argument of their own.
fn own_results(function: &Function, facts: &KernelFacts) -> impl Iterator<Item = usize> {
    (0..function.results.len()).filter(|r| !facts.overwrites.iter().any(|(_, result)| result == r))
}

/// A kernel with what its arguments are read and written for.
pub fn kernel(function: &Function, facts: &KernelFacts) -> Kernel {
    let count = function.params.len();
    let mut args = vec![Access::Read; count];
    facts.overwrites.iter().for_each(|(p, _)| args[*p] = Access::ReadWrite);
    let own: Vec<usize> = own_results(function, facts).collect();
    args.resize(count + own.len(), Access::Write);
    if facts.workspace > 0 {
        args.push(Access::Write);
    }
    let in_place = facts.in_place.iter().filter_map(|(p, result)| {
        let at = own.iter().position(|r| r == result)?;
        Some((*p as u32, (count + at) as u32))
    });
    Kernel {
        symbol: function.name.clone(),
        args,
        in_place: in_place.collect(),
        scalars: 0,
        max_parts: facts.max_parts,
        flops: facts.flops,
        products: facts.products,
        elementwise: facts.elementwise,
        bytes: facts.bytes,
        workspace: facts.workspace,
    }
}
