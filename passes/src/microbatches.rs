//! `microbatches`: a step over a batch as a repeated call of the step over a part of it; gradients are added up.
//!
//! The module that comes in is traced for one micro-batch. Each feed becomes a stack of `count` parts, and the losses and
//! gradients of all parts are added in their order. A mean is divided by the number of parts. A factor of the loss that
//! depends on data, such as a count, is computed of the sums over all parts and taken once. So a mean is never a mean of
//! means. Numbers that are no sums over samples, and are marked as means over micro-batches, may be added to it: then counts are
//! taken of the feeds before the first part.

mod body;
mod loss;
mod samples;
mod sized;

use diag::{Diagnostic, Diagnostics};
use ir::{Builder, Call, Function, Id, Input, Inst, Mismatch, Module, NodeId, Output, Program, Type};
use serde::{Deserialize, Serialize};

pub use self::sized::SizedConstants;

use self::loss::Loss;
use self::samples::Total;
use crate::autodiff::Derivatives;
use crate::{Context, Pass, callgraph, diagnostics};

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
                self.split(module, index, cx.sized.as_ref())?;
                cx.stats.count("micro-batches", self.count as u64);
            }
        }
        callgraph::sweep(module);
        Ok(())
    }
}

/// That nothing but the loss and gradients leaves a micro-batch, and that every feed falls into samples.
fn check(module: &Module, program: &Program) -> Result<(), Diagnostics> {
    if program.outputs.iter().any(|o| matches!(o, Output::Probe(_))) {
        return Err(Diagnostic::error("--probe asks for what modules compute, of which each micro-batch has its own")
            .help("compile with --microbatches 1 and without --pp, or leave --probe out")
            .into());
    }
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
    fn split(&self, module: &mut Module, index: usize, sized: Option<&SizedConstants>) -> Result<(), Diagnostics> {
        let mut program = module.programs[index].clone();
        let old = module.functions[program.function].clone();
        let loss = loss::of(module, &program, &old, sized)?;
        let unfit = |m: Mismatch| diagnostics::unfit("microbatches", &old, &m);
        let one = body::of(module, &program, &old, &loss).map_err(unfit)?;
        let counts = match loss.beside {
            Some(_) => Some(self.counts(module, &program, &old, &loss).map_err(unfit)?),
            None => None,
        };
        let whole = self.whole(module, &program, &old, &loss, one, counts).map_err(unfit)?;
        program.function = module.functions.add(whole);
        module.programs[index] = program;
        Ok(())
    }

    /// What the factors of the loss are made of, for all micro-batches: a function of feeds, which is no work on one of them.
    fn counts(
        &self,
        module: &mut Module,
        program: &Program,
        old: &Function,
        loss: &Loss,
    ) -> Result<Id<Function>, Mismatch> {
        let body = body::counts(module, program, old, loss)?;
        let callee = module.functions[body].clone();
        let mut b = Builder::new(module.fresh_name(&format!("{}.counts", old.name)));
        let mut stacks = vec![];
        for (input, &p) in program.inputs.iter().zip(&old.params) {
            if let (Input::Feed(_), Type::Tensor(of)) = (input, old.ty(p)) {
                stacks.push(b.param(Type::Stack { count: self.count, of: of.clone() }));
            }
        }
        let mut derivatives = Derivatives::new(module);
        let mut operands: Vec<NodeId> = callee.result_types().map(|ty| derivatives.zero(&mut b, ty)).collect();
        let carried = operands.len();
        operands.extend(stacks);
        let call = Call { callee: body, times: Some(self.count), carried, shared: 0, reverse: false };
        let call = b.call(call, &callee, &operands);
        b.function.results = b.results(call).to_vec();
        let counts = b.finish()?;
        Ok(module.functions.add(counts))
    }

    /// The calls for all micro-batches, and the factors after them; or before them, if `counts` tells what they are made of.
    fn whole(
        &self,
        module: &mut Module,
        program: &Program,
        old: &Function,
        loss: &Loss,
        body: Id<Function>,
        counts: Option<Id<Function>>,
    ) -> Result<Function, Mismatch> {
        let mut b = Builder::new(module.fresh_name(&format!("{}.microbatches", old.name)));
        let (mut shared, mut stacks) = (vec![], vec![]);
        let mut map: Vec<Option<NodeId>> = vec![None; old.nodes.len()];
        for (input, &p) in program.inputs.iter().zip(&old.params) {
            b.place = old.nodes[p].place;
            match (input, old.ty(p)) {
                (Input::Feed(_), Type::Tensor(of)) => {
                    stacks.push(b.param(Type::Stack { count: self.count, of: of.clone() }));
                }
                (_, ty) => {
                    let param = b.param(ty.clone());
                    map[p.index()] = Some(param);
                    shared.push(param);
                }
            }
        }
        if let Some(counts) = counts {
            let callee = module.functions[counts].clone();
            let call = Call { callee: counts, times: None, carried: 0, shared: stacks.len(), reverse: false };
            let call = b.call(call, &callee, &stacks);
            let sums = b.results(call).to_vec();
            shared.extend(self.known_factors(module, &mut b, old, loss, sums, map.clone())?);
        }
        let callee = module.functions[body].clone();
        let carried = callee.results.len();
        let mut derivatives = Derivatives::new(module);
        let mut operands: Vec<NodeId> = callee.result_types().map(|ty| derivatives.zero(&mut b, ty)).collect();
        let call = Call { callee: body, times: Some(self.count), carried, shared: shared.len(), reverse: false };
        operands.extend(shared.into_iter().chain(stacks));
        let call = b.call(call, &callee, &operands);
        let mut sums = b.results(call).to_vec();
        let counted = sums.split_off(old.results.len());
        let factors = match counts {
            Some(_) => vec![],
            None => self.factors(derivatives.module, &mut b, old, loss, counted, map)?,
        };
        let mut results = Vec::with_capacity(sums.len());
        for mut x in sums {
            if loss.total == Total::Mean {
                x = self.mean(derivatives.module, &mut b, x);
            }
            for &(factor, divides) in &factors {
                x = scaled(derivatives.module, &mut b, x, factor, divides);
            }
            results.push(x);
        }
        b.function.results = results;
        b.finish()
    }

    /// The factors, of the sums over all micro-batches.
    fn factors(
        &self,
        module: &mut Module,
        b: &mut Builder,
        old: &Function,
        loss: &Loss,
        sums: Vec<NodeId>,
        mut map: Vec<Option<NodeId>>,
    ) -> Result<Vec<(NodeId, bool)>, Mismatch> {
        for (&(id, total), sum) in loss.sums.iter().zip(sums) {
            let whole = if total == Total::Mean { self.mean(module, b, sum) } else { sum };
            map[id.index()] = Some(whole);
        }
        factors(b, old, loss, map)
    }

    /// The factors by which one micro-batch's part of the loss is to be multiplied or divided, so that the mean over
    /// micro-batches is that of the whole batch.
    fn known_factors(
        &self,
        module: &mut Module,
        b: &mut Builder,
        old: &Function,
        loss: &Loss,
        sums: Vec<NodeId>,
        map: Vec<Option<NodeId>>,
    ) -> Result<Vec<NodeId>, Mismatch> {
        let mut factors = self.factors(module, b, old, loss, sums, map)?;
        factors.reverse();
        if let (Some(Total::Sum { .. }), Some((factor, divides))) = (loss.beside, factors.first_mut())
            && let Some(element) = b.function.ty(*factor).element().cloned()
        {
            let count = b.constant(self.count as f64, element.dtype);
            *factor = scaled(module, b, *factor, count, *divides);
        }
        Ok(factors.into_iter().map(|(factor, _)| factor).collect())
    }

    /// `x` over the number of micro-batches.
    fn mean(&self, module: &mut Module, b: &mut Builder, x: NodeId) -> NodeId {
        let Some(element) = b.function.ty(x).element().cloned() else { return x };
        let count = b.constant(self.count as f64, element.dtype);
        scaled(module, b, x, count, true)
    }
}

/// The factors of the loss, of the sums over all micro-batches that `map` has.
fn factors(
    b: &mut Builder,
    old: &Function,
    loss: &Loss,
    mut map: Vec<Option<NodeId>>,
) -> Result<Vec<(NodeId, bool)>, Mismatch> {
    for (id, node) in old.nodes.iter().filter(|(id, _)| loss.expression.contains(&id.index())) {
        if map[id.index()].is_some() {
            continue;
        }
        b.place = node.place;
        let args: Option<Vec<NodeId>> = node.args.iter().map(|a| map[a.index()]).collect();
        let args = args.ok_or_else(|| Mismatch::new(format!("{id} reads a value that is not there")))?;
        map[id.index()] = Some(match &node.inst {
            Inst::Op(op) => b.op(op.clone(), &args),
            inst => b.push(inst.clone(), args, node.ty.clone()),
        });
    }
    let of = |f: &loss::Factor| map[f.node.index()].map(|node| (node, f.divides));
    let all: Option<Vec<(NodeId, bool)>> = loss.factors.iter().rev().map(of).collect();
    all.ok_or_else(|| Mismatch::new("a factor is not there"))
}

/// `x` times a factor, or over it; of a stack, each element.
fn scaled(module: &mut Module, b: &mut Builder, x: NodeId, by: NodeId, divides: bool) -> NodeId {
    let Some(element) = b.function.ty(x).element().cloned() else { return x };
    let by = b.cast(by, element.dtype);
    let apply = |b: &mut Builder, x, by| if divides { b.div(x, by) } else { b.mul(x, by) };
    let Type::Stack { count, of } = b.function.ty(x).clone() else { return apply(b, x, by) };
    let mut one = Builder::new(module.fresh_name(if divides { "divide" } else { "multiply" }));
    let (factor, of_stack) = (one.param(b.function.ty(by).clone()), one.param(of.clone()));
    let scaled = apply(&mut one, of_stack, factor);
    one.function.results.push(scaled);
    let callee = module.functions.add(one.function);
    let call = Call { callee, times: Some(count), carried: 0, shared: 1, reverse: false };
    b.push(Inst::Call(call), [by, x], Type::Stack { count, of })
}
