//! What the loss of a program is a mean over, seen from its last operators.

use std::collections::{BTreeMap, BTreeSet};

use diag::{Diagnostic, Diagnostics};
use ir::{Function, Input, Inst, Module, NodeId, Op, Output, Program};

use super::samples::{self, Batch, Samples};
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
    let samples = samples(module, program, function);
    let emit = program.outputs.iter().position(|o| matches!(o, Output::Emit(_)));
    let Some(mut loss) = emit.map(|i| function.results[i]) else { return Ok(None) };
    while let (Inst::Op(Op::Cast(_) | Op::Reshape(_)), [of]) =
        (&function.nodes[loss].inst, function.nodes[loss].args.as_slice())
    {
        loss = *of;
    }
    let node = &function.nodes[loss];
    if let (Inst::Op(Op::Div(_)), &[sum, divisor]) = (&node.inst, node.args.as_slice())
        && fed(&samples, divisor)
    {
        let count = means::count(function, divisor);
        for part in [sum, count] {
            additive(module, function, &samples, part)?;
        }
        return Ok(Some(Mean { count, divisor }));
    }
    if additive(module, function, &samples, loss)? {
        return Ok(None);
    }
    let error = Diagnostic::error("the loss is a sum over samples, not a mean")
        .help("take `.mean()`, or divide by a count of what was summed; or compile with --microbatches 1");
    Err(blame::at(module, node.place, error).into())
}

/// How values depend on the samples of the feeds.
fn samples(module: &Module, program: &Program, function: &Function) -> Vec<samples::Results> {
    let mut batch = Batch { name: "".into(), size: 1 };
    let mut params = vec![Samples::None; function.params.len()];
    for (i, (input, &param)) in program.inputs.iter().zip(&function.params).enumerate() {
        if let (Input::Feed(_), Some(first)) = (input, function.ty(param).tensor().and_then(|t| t.dims.first())) {
            batch = Batch { name: first.name.clone(), size: first.size };
            params[i] = Samples::Apart([0].into());
        }
    }
    samples::of(module, function, &batch, &params)
}

fn fed(samples: &[samples::Results], node: NodeId) -> bool {
    samples[node.index()].iter().any(|s| !matches!(s, Samples::Zero | Samples::None))
}

fn is_sum(samples: &[samples::Results], node: NodeId) -> bool {
    samples[node.index()][..] == [Samples::Sum]
}

/// That a number is a sum over samples: nothing that is not linear is done with what all of them give. Whether the sum
/// is a mean: one of the divisors is the number of what was summed.
fn additive(
    module: &Module,
    function: &Function,
    samples: &[samples::Results],
    root: NodeId,
) -> Result<bool, Diagnostics> {
    if let Some(&Samples::Mixed(op, place)) = samples[root.index()].first() {
        let error =
            Diagnostic::error(format!("the loss is no sum over samples: `{op}` is taken of a number for all of them"))
                .help("write it as a mean over samples, or as a sum over a count; or compile with --microbatches 1");
        return Err(blame::at(module, place, error).into());
    }
    // By node that the number follows from: what it is divided by on every way there, and how often.
    let mut divisors: Vec<Option<BTreeMap<u64, usize>>> = vec![None; function.nodes.len()];
    divisors[root.index()] = Some(BTreeMap::new());
    let counts = counts(function);
    let mut mean = true;
    // Each node once, after all that reads it: there are many more ways than nodes.
    for (id, node) in function.nodes.iter().rev() {
        let Some(mut above) = divisors[id.index()].take() else { continue };
        let (Inst::Op(op), true) = (&node.inst, is_sum(samples, id)) else {
            mean = false;
            continue;
        };
        if let (Op::ReduceSum(_), [summed]) = (op, node.args.as_slice()) {
            let count = summed_elements(function, id, *summed);
            let divided = above.get_mut(&count);
            if !is_sum(samples, *summed) {
                mean &= divided.is_some();
                continue;
            }
            // A mean over other dims than those of samples.
            match divided {
                Some(1) => _ = above.remove(&count),
                Some(times) => *times -= 1,
                None => {}
            }
        }
        if let (Op::Div(_), Inst::Op(Op::Constant(by))) = (op, &function.nodes[node.args[node.args.len() - 1]].inst)
            && by.value >= 0.0
            && by.value.fract() == 0.0
            && counts.contains(&(by.value as u64))
        {
            *above.entry(by.value as u64).or_default() += 1;
        }
        let from: Vec<NodeId> = node.args.iter().copied().filter(|a| fed(samples, *a)).collect();
        mean &= !from.is_empty();
        for arg in from {
            let known = &mut divisors[arg.index()];
            *known = Some(match known.take() {
                Some(known) => known.iter().filter_map(|(n, a)| above.get(n).map(|b| (*n, *a.min(b)))).collect(),
                None => above.clone(),
            });
        }
    }
    Ok(mean)
}

/// How many elements the sums of a function take, which are the only divisors that matter.
fn counts(function: &Function) -> BTreeSet<u64> {
    let sums = function.nodes.iter().filter(|(_, node)| matches!(&node.inst, Inst::Op(Op::ReduceSum(_))));
    sums.map(|(id, node)| summed_elements(function, id, node.args[0])).collect()
}

/// How many elements of `operand` each element of its sum takes.
fn summed_elements(function: &Function, sum: NodeId, operand: NodeId) -> u64 {
    let elements = |id: NodeId| function.ty(id).tensor().map_or(0, |t| t.elements() as u64);
    elements(operand) / elements(sum).max(1)
}
