//! What the loss of a program is a mean over, seen from its last operators.

use diag::{Diagnostic, Diagnostics};
use ir::{Function, Input, Inst, Module, NodeId, Op, Output, Program};

use crate::blame;

/// The divisor of a loss that is a sum over a count, where the count depends on data.
#[derive(Clone, Copy, Debug)]
pub struct Mean {
    pub count: NodeId,
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
    if let (Inst::Op(Op::Div(_)), &[sum, count]) = (&node.inst, node.args.as_slice())
        && fed[count.index()]
    {
        for part in [sum, count] {
            additive(module, function, &fed, part)?;
        }
        return Ok(Some(Mean { count }));
    }
    additive(module, function, &fed, loss)?;
    Ok(None)
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
/// with one number for all samples.
fn additive(module: &Module, function: &Function, fed: &[bool], at: NodeId) -> Result<(), Diagnostics> {
    let node = &function.nodes[at];
    let Inst::Op(op) = &node.inst else { return Ok(()) };
    if node.ty.tensor().is_none_or(|t| t.rank() > 0) {
        return Ok(());
    }
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
        .help("write it as a sum or mean over samples, or as a sum over a count; or compile with --microbatches 1");
        return Err(blame::at(module, node.place, error).into());
    }
    from.into_iter().try_for_each(|arg| additive(module, function, fed, arg))
}
