//! What the loss of a program is a mean over, seen from its last operators.

use std::collections::BTreeSet;

use diag::{Diagnostic, Diagnostics};
use ir::{Function, Input, Inst, Module, NodeId, Op, Output, Program};

use crate::{blame, means};

/// A loss that is a sum over a count, where the count depends on data.
#[derive(Clone, Copy, Debug)]
pub struct Mean {
    pub count: NodeId,
    /// The count, or 1 where it is 0.
    pub divisor: NodeId,
}

/// `None` if the loss of all micro-batches is the plain mean of theirs.
pub fn mean(module: &Module, program: &Program, function: &Function) -> Result<Option<Mean>, Diagnostics> {
    let fed = fed(program, function);
    let emit = program.outputs.iter().position(|o| matches!(o, Output::Emit(_)));
    let Some(mut loss) = emit.map(|i| function.results[i]) else { return Ok(None) };
    while let (Inst::Op(Op::Cast(_) | Op::Reshape(_)), [of]) =
        (&function.nodes[loss].inst, function.nodes[loss].args.as_slice())
    {
        loss = *of;
    }
    let node = &function.nodes[loss];
    if let (Inst::Op(Op::Div(_)), &[sum, divisor]) = (&node.inst, node.args.as_slice())
        && fed[divisor.index()]
    {
        let count = means::count(function, divisor);
        for part in [sum, count] {
            additive(module, function, &fed, part)?;
        }
        return Ok(Some(Mean { count, divisor }));
    }
    if additive(module, function, &fed, loss)? {
        return Ok(None);
    }
    let error = Diagnostic::error("the loss is a sum over samples, not a mean")
        .help("take `.mean()`, or divide by a count of what was summed; or compile with --microbatches 1");
    Err(blame::at(module, node.place, error).into())
}

/// Which values depend on a feed.
fn fed(program: &Program, function: &Function) -> Vec<bool> {
    let mut fed = vec![false; function.nodes.len()];
    for (input, &param) in program.inputs.iter().zip(&function.params) {
        fed[param.index()] = matches!(input, Input::Feed(_));
    }
    for (id, node) in function.nodes.iter() {
        if node.args.iter().any(|a| fed[a.index()]) {
            fed[id.index()] = true;
        }
    }
    fed
}

/// That a number is a sum over samples, as far as the last operators before it tell: nothing that is not linear is done
/// with one number for all samples. Whether the sum is a mean: one of the divisors is the number of what was summed.
fn additive(module: &Module, function: &Function, fed: &[bool], root: NodeId) -> Result<bool, Diagnostics> {
    // By node that the number follows from: what it is divided by on every way there.
    let mut divisors: Vec<Option<BTreeSet<u64>>> = vec![None; function.nodes.len()];
    divisors[root.index()] = Some(BTreeSet::new());
    let counts = counts(function);
    let mut mean = true;
    // Each node once, after all that reads it: there are many more ways than nodes.
    for (id, node) in function.nodes.iter().rev() {
        let Some(mut above) = divisors[id.index()].take() else { continue };
        let (Inst::Op(op), Some(0)) = (&node.inst, node.ty.tensor().map(|t| t.rank())) else {
            mean = false;
            continue;
        };
        let from: Vec<NodeId> = node.args.iter().copied().filter(|a| fed[a.index()]).collect();
        let linear = match op {
            Op::Cast(_) | Op::Reshape(_) | Op::ReduceSum(_) | Op::Neg(_) => true,
            Op::Add(_) | Op::Sub(_) => from.len() == node.args.len(),
            Op::Mul(_) => from.len() == 1,
            Op::Div(_) => from == node.args[..1],
            _ => false,
        };
        if !linear {
            let error = Diagnostic::error(format!(
                "the loss is no sum over samples: `{}` is taken of a number for all of them",
                op.name()
            ))
            .help("write it as a mean over samples, or as a sum over a count; or compile with --microbatches 1");
            return Err(blame::at(module, node.place, error).into());
        }
        if let (Op::ReduceSum(_), [summed]) = (op, node.args.as_slice()) {
            mean &= above.contains(&summed_elements(function, *summed));
            continue;
        }
        if let (Op::Div(_), Inst::Op(Op::Constant(by))) = (op, &function.nodes[node.args[node.args.len() - 1]].inst)
            && by.value >= 0.0
            && by.value.fract() == 0.0
            && counts.contains(&(by.value as u64))
        {
            above.insert(by.value as u64);
        }
        mean &= !from.is_empty();
        for arg in from {
            let known = &mut divisors[arg.index()];
            *known = Some(match known.take() {
                Some(known) => known.intersection(&above).copied().collect(),
                None => above.clone(),
            });
        }
    }
    Ok(mean)
}

/// How many elements the sums of a function take, which are the only divisors that matter.
fn counts(function: &Function) -> BTreeSet<u64> {
    let sums = function.nodes.iter().filter(|(_, node)| matches!(&node.inst, Inst::Op(Op::ReduceSum(_))));
    sums.map(|(_, node)| summed_elements(function, node.args[0])).collect()
}

fn summed_elements(function: &Function, operand: NodeId) -> u64 {
    function.ty(operand).tensor().map_or(0, |t| t.elements() as u64)
}
