//! `microbatches`: a step over a batch as a repeated call of the step over a part of it; gradients are added up.
//!
//! The module that comes in is traced for one micro-batch. Each feed becomes a stack of `count` parts, the losses and
//! gradients of all parts are added in their order, and the sums are divided once: by the number of parts, or, where the
//! loss is a sum over a count that depends on data, by the count over all parts. So a mean is never a mean of means.

mod body;
mod loss;
mod samples;

use diag::{Diagnostic, Diagnostics};
use ir::{Builder, Call, Function, Id, Input, Inst, Mismatch, Module, NodeId, Output, Program, Type};
use serde::{Deserialize, Serialize};

use crate::autodiff::Derivatives;
use crate::{Context, Pass, blame, callgraph, means};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Microbatches {
    pub count: usize,
}

impl Default for Microbatches {
    fn default() -> Self {
        Self { count: 1 }
    }
}

impl Pass for Microbatches {
    fn run(&self, module: &mut Module, cx: &mut Context<'_>) -> Result<(), Diagnostics> {
        if self.count == 0 {
            return Err(Diagnostic::error("a step has no micro-batches").help("give `count` 1 or more").into());
        }
        for index in 0..module.programs.len() {
            let trains = module.programs[index].outputs.iter().any(|o| matches!(o, Output::Gradient(_)));
            if self.count > 1 && trains {
                check(module, &module.programs[index])?;
                self.split(module, index)?;
                cx.stats.count("micro-batches", self.count as u64);
            }
        }
        callgraph::sweep(module);
        Ok(())
    }
}

/// That nothing but the loss and gradients leaves a micro-batch, and that every feed falls into samples.
fn check(module: &Module, program: &Program) -> Result<(), Diagnostics> {
    let emits = program.outputs.iter().filter(|o| matches!(o, Output::Emit(_))).count();
    let other = program.outputs.iter().any(|o| !matches!(o, Output::Emit(_) | Output::Gradient(_)));
    if emits != 1 || other {
        return Err(Diagnostic::error(format!(
            "program `{}` gives more than one loss and its gradients, which do not add up over micro-batches",
            program.name
        ))
        .help("compile it with --microbatches 1")
        .into());
    }
    let function = &module.functions[program.function];
    let mut batch = None;
    for (input, &param) in program.inputs.iter().zip(&function.params) {
        let Input::Feed(feed) = input else { continue };
        let first = function.ty(param).tensor().and_then(|t| t.dims.first());
        let alike = first.is_some_and(|dim| dim.name == batch.get_or_insert(dim).name);
        if !alike {
            return Err(Diagnostic::error(format!(
                "`{}` does not fall into micro-batches: its first dim is not that of the samples",
                feed.name
            ))
            .help("put the dim of samples first in every feed and draw, or compile with --microbatches 1")
            .into());
        }
    }
    Ok(())
}

impl Microbatches {
    fn split(&self, module: &mut Module, index: usize) -> Result<(), Diagnostics> {
        let mut program = module.programs[index].clone();
        let old = module.functions[program.function].clone();
        let mean = loss::mean(module, &program, &old)?;
        let unfit = |m: Mismatch| blame::unfit("microbatches", &old, &m);
        let one = body::of(module, &program, &old, mean).map_err(unfit)?;
        let whole = self.whole(module, &program, &old, mean, one).map_err(unfit)?;
        program.function = module.functions.add(whole);
        module.programs[index] = program;
        Ok(())
    }

    /// The calls for all micro-batches, and what is divided after them.
    fn whole(
        &self,
        module: &mut Module,
        program: &Program,
        old: &Function,
        mean: Option<loss::Mean>,
        body: Id<Function>,
    ) -> Result<Function, Mismatch> {
        let mut b = Builder::new(module.fresh_name(&format!("{}.microbatches", old.name)));
        let (mut shared, mut stacks) = (vec![], vec![]);
        for (input, &p) in program.inputs.iter().zip(&old.params) {
            b.place = old.nodes[p].place;
            match (input, old.ty(p)) {
                (Input::Feed(_), Type::Tensor(of)) => {
                    stacks.push(b.param(Type::Stack { count: self.count, of: of.clone() }));
                }
                (_, ty) => shared.push(b.param(ty.clone())),
            }
        }
        let callee = module.functions[body].clone();
        let carried = callee.results.len();
        let mut derivatives = Derivatives::new(module);
        let mut operands: Vec<NodeId> = callee.result_types().map(|ty| derivatives.zero(&mut b, ty)).collect();
        let call = Call { callee: body, times: Some(self.count), carried, shared: shared.len(), reverse: false };
        operands.extend(shared.into_iter().chain(stacks));
        let call = b.call(call, &callee, &operands);
        let mut sums = b.results(call).to_vec();
        let divisor = match mean {
            Some(_) => sums.pop().map(|count| means::divisor(&mut b, count)),
            None => None,
        };
        let results = sums.into_iter().map(|sum| self.divided(derivatives.module, &mut b, sum, divisor)).collect();
        b.function.results = results;
        b.finish()
    }

    /// `x` over the number of micro-batches, or over `divisor`.
    fn divided(&self, module: &mut Module, b: &mut Builder, x: NodeId, divisor: Option<NodeId>) -> NodeId {
        let Some(element) = b.function.ty(x).element().cloned() else { return x };
        let divisor = match divisor {
            Some(divisor) => b.cast(divisor, element.dtype),
            None => b.constant(self.count as f64, element.dtype),
        };
        let Type::Stack { count, of } = b.function.ty(x).clone() else { return b.div(x, divisor) };
        let mut one = Builder::new(module.fresh_name("divide"));
        let (by, of_stack) = (one.param(b.function.ty(divisor).clone()), one.param(of.clone()));
        let quotient = one.div(of_stack, by);
        one.function.results.push(quotient);
        let callee = module.functions.add(one.function);
        let call = Call { callee, times: Some(count), carried: 0, shared: 1, reverse: false };
        b.push(Inst::Call(call), [divisor, x], Type::Stack { count, of })
    }
}
