//! `autodiff`: appends the gradient of each loss by each trainable parameter.
//!
//! A program with a loss emits it afterwards, and has an `Output::Gradient` for every trainable parameter that the loss
//! depends on. Inside, a call of `@f` becomes one of `@f.fwd`, which also returns residuals, and later one of `@f.bwd`,
//! which turns residuals and cotangents of results into cotangents of operands. Means over counts from data are made safe
//! first: where nothing counts, the loss and its gradients are 0.

mod calls;
mod copy;
mod derivative;
mod joint;
mod residuals;
mod sums;

use diag::{Diagnostic, Diagnostics};
use indexmap::IndexMap;
use ir::{Function, Id, Input, Inst, Module, NodeId, Output, Program};
use serde::{Deserialize, Serialize};
use types::Name;

use self::copy::Copy;
pub(crate) use self::derivative::Derivatives;
use crate::{Context, Pass, activity, callgraph, diagnostics, means};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Autodiff {}

impl Pass for Autodiff {
    fn run(&self, module: &mut Module, cx: &mut Context<'_>) -> Result<(), Diagnostics> {
        for index in 0..module.programs.len() {
            if module.programs[index].outputs.iter().any(|o| matches!(o, Output::Loss(_))) {
                let (program, function) = differentiate(module, index, cx)?;
                install(module, index, program, function);
            }
        }
        callgraph::sweep(module);
        Ok(())
    }
}

/// The program and its function with gradients. Several losses are as good as their sum.
fn differentiate(module: &mut Module, index: usize, cx: &mut Context<'_>) -> Result<(Program, Function), Diagnostics> {
    let mut program = module.programs[index].clone();
    let wanted: Vec<bool> = program.inputs.iter().map(|input| trained(module, input).is_some()).collect();
    means::guard(module, program.function, &wanted)
        .map_err(|(f, mismatch)| diagnostics::unfit("autodiff", &module.functions[f], &mismatch))?;
    let function = module.functions[program.function].clone();
    check_losses(module, &program, &function, &wanted)?;

    let mut derivatives = Derivatives::new(module);
    let mut joint = derivatives.joint(&function, &wanted, &mut |b, result| {
        let loss = matches!(program.outputs[result], Output::Loss(_));
        let dtype = function.ty(function.results[result]).element()?.dtype;
        loss.then(|| b.constant(1.0, dtype))
    })?;
    // A parameter that comes in twice has the sum of both gradients.
    let mut gradients: IndexMap<Name, Option<NodeId>> = IndexMap::new();
    for (i, input) in program.inputs.iter().enumerate() {
        let Some(name) = trained(derivatives.module, input) else { continue };
        let new = joint.cotangent(&mut derivatives, joint.params[i]);
        let sum = gradients.entry(name.clone()).or_insert(None);
        *sum = match (*sum, new) {
            (Some(a), Some(b)) => Some(derivatives.add(&mut joint.b, a, b)),
            (a, b) => a.or(b),
        };
    }
    let mut roots = joint.results.clone();
    for (name, gradient) in gradients {
        match gradient {
            Some(gradient) => {
                roots.push(gradient);
                program.outputs.push(Output::Gradient(name));
            }
            None => cx.warnings.push(
                Diagnostic::warning(format!("the loss does not depend on parameter `{name}`"))
                    .note("it gets no gradient and stays as it is"),
            ),
        }
    }
    cx.stats.count("gradients", roots.len() as u64 - joint.results.len() as u64);
    for output in &mut program.outputs {
        if let Output::Loss(name) = output {
            *output = Output::Emit(name.clone());
        }
    }
    let mut copy = Copy::new(function.name.clone());
    for &p in &joint.params {
        copy.param(&joint, p);
    }
    let new = copy.finish(&joint, &roots).map_err(|m| diagnostics::unfit("autodiff", &function, &m))?;
    Ok((program, new))
}

/// The parameter that an input is, if it is one to train.
pub(crate) fn trained<'a>(module: &Module, input: &'a Input) -> Option<&'a Name> {
    let Input::Parameter(name) = input else { return None };
    let parameter = module.parameters.get(name)?;
    let float = parameter.ty.element().is_some_and(|t| t.dtype.is_float());
    (parameter.record.trainable && float).then_some(name)
}

fn check_losses(module: &Module, program: &Program, function: &Function, wanted: &[bool]) -> Result<(), Diagnostics> {
    let active = activity::values(module, function, wanted);
    let losses = program.outputs.iter().zip(&function.results).filter(|(o, _)| matches!(o, Output::Loss(_)));
    let mut depends = losses.map(|(_, r)| active[r.index()].iter().any(|a| *a));
    if depends.any(|d| d) {
        return Ok(());
    }
    let message = format!("no loss of program `{}` depends on a trainable parameter", program.name);
    Err(Diagnostic::error(message).help("make a parameter trainable, or compile a task that does not train").into())
}

/// The new function takes the old one's place unless something else needs that.
fn install(module: &mut Module, index: usize, mut program: Program, mut function: Function) {
    let old = program.function;
    let used = |(i, p): (usize, &Program)| i != index && p.function == old;
    if module.programs.iter().enumerate().any(used) || is_called(module, old) {
        function.name = module.fresh_name(&function.name);
        program.function = module.functions.add(function);
    } else {
        module.functions[old] = function;
    }
    module.programs[index] = program;
}

fn is_called(module: &Module, id: Id<Function>) -> bool {
    let calls = |f: &Function| f.nodes.iter().any(|(_, n)| matches!(&n.inst, Inst::Call(c) if c.callee == id));
    module.functions.iter().any(|(_, f)| calls(f))
}
