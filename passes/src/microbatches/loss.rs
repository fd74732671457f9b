//! What the loss of a program is: a sum over samples, times factors that all samples of a step make together.

use std::collections::BTreeSet;

use diag::{Diagnostic, Diagnostics};
use ir::{Function, Input, Inst, Module, NodeId, Op, Output, Program};

use super::samples::{self, Batch, Samples, Total};
use super::sized::SizedConstants;
use crate::diagnostics;
use crate::{activity, autodiff};

/// How the loss of a step follows from those of its micro-batches.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Of the loss, where each factor is 1.
    pub total: Total,
    pub factors: Vec<Factor>,
    /// Sums over samples that the factors are functions of.
    pub sums: Vec<(NodeId, Total)>,
    /// The factors and what they follow from, down to the sums and what no feed changes.
    pub expression: BTreeSet<usize>,
    /// The total of the part that the factors multiply, where numbers are added to it of which each micro-batch has its own.
    /// Then the loss is a mean over micro-batches, and the factors are known before the first of them.
    pub beside: Option<Total>,
}

/// A number from data by which the sum is multiplied or divided, such as a count.
#[derive(Clone, Copy, Debug)]
pub struct Factor {
    pub node: NodeId,
    pub divides: bool,
}

impl Loss {
    pub fn is_factor(&self, node: NodeId) -> bool {
        self.factors.iter().any(|f| f.node == node)
    }
}

pub fn of(
    module: &Module,
    program: &Program,
    function: &Function,
    sized: Option<&SizedConstants>,
) -> Result<Loss, Diagnostics> {
    let emit = program.outputs.iter().position(|o| matches!(o, Output::Emit(_)));
    let Some(root) = emit.map(|i| function.results[i]) else {
        return Err(Diagnostic::error(format!("program `{}` has no loss", program.name)).into());
    };
    let (batch, params) = feeds(program, function, sized);
    let samples = samples::of(module, function, &batch, &params, &BTreeSet::new());
    let (mut factors_of_root, mut rest) = factors(module, program, function, &samples, root);
    let mut beside = None;
    if let Some((main, mean)) = added_mean(function, &samples, rest) {
        let (factors, summed) = factors(module, program, function, &samples, main);
        if !factors.is_empty() && factors_of_root.is_empty() {
            (factors_of_root, rest, beside) = (factors, summed, Some((main, mean)));
        }
    }
    let factors = factors_of_root;
    let known = factors.iter().map(|f| f.node.index()).collect::<BTreeSet<_>>();
    if reaches(function, rest, &known) || beside.is_some_and(|(_, mean)| reaches(function, mean, &known)) {
        let error = Diagnostic::error("what the loss is divided by is a part of the sum, too")
            .help("write the loss as a sum over a count; or compile with --microbatches 1");
        return Err(diagnostics::at(module, function.nodes[root].place, error).into());
    }
    let where_known = samples::of(module, function, &batch, &params, &known);
    let mut loss = Loss { total: Total::Mean, factors, sums: vec![], expression: BTreeSet::new(), beside: None };
    match beside {
        Some((main, _)) => loss.beside = Some(total(module, function, &where_known, main)?),
        None => loss.total = total(module, function, &where_known, root)?,
    }
    for at in 0..loss.factors.len() {
        expression(module, function, &samples, &batch, &mut loss, at)?;
    }
    if beside.is_some() {
        counted_apart(module, program, function, &loss)?;
    }
    if loss.factors.is_empty() && loss.total != Total::Mean {
        let error = Diagnostic::error("the loss is a sum over samples, not a mean")
            .help("take `.mean()`, or divide by a count of what was summed; or compile with --microbatches 1");
        return Err(diagnostics::at(module, function.nodes[root].place, error).into());
    }
    Ok(loss)
}

/// The dim of samples, and how the function's parameters depend on them.
fn feeds<'c>(program: &Program, function: &Function, sized: Option<&'c SizedConstants>) -> (Batch<'c>, Vec<Samples>) {
    let mut batch = Batch { name: "".into(), size: 1, sized };
    let mut params = vec![Samples::None; function.params.len()];
    for (i, (input, &param)) in program.inputs.iter().zip(&function.params).enumerate() {
        if let (Input::Feed(_), Some(first)) = (input, function.ty(param).tensor().and_then(|t| t.dims.first())) {
            batch = Batch { name: first.name.clone(), size: first.size, sized };
            params[i] = Samples::Apart([0].into());
        }
    }
    (batch, params)
}

/// The factors of the loss, seen from its last operators, and what they multiply.
fn factors(
    module: &Module,
    program: &Program,
    function: &Function,
    samples: &[samples::Results],
    root: NodeId,
) -> (Vec<Factor>, NodeId) {
    let wanted: Vec<bool> = program.inputs.iter().map(|i| autodiff::trained(module, i).is_some()).collect();
    let active = activity::values(module, function, &wanted);
    let is_active = |id: NodeId| active[id.index()].iter().any(|a| *a);
    let fed = |id: NodeId| samples[id.index()].iter().any(Samples::is_fed);
    // A number for all samples, with no gradient.
    let common = |id: NodeId| matches!(samples[id.index()][..], [Samples::Sum(_) | Samples::Mixed(..)]);
    let is_factor = |id: NodeId| common(id) && !is_active(id);
    let (mut factors, mut at) = (vec![], root);
    loop {
        let node = &function.nodes[at];
        at = match (&node.inst, node.args.as_slice()) {
            (Inst::Op(Op::Cast(_) | Op::Reshape(_) | Op::Neg(_)), &[of]) if common(of) => of,
            (Inst::Op(Op::Mul(_) | Op::Div(_)), &[of, by]) if !fed(by) && common(of) => of,
            (Inst::Op(Op::Mul(_)), &[by, of]) if !fed(by) && common(of) => of,
            (Inst::Op(Op::Div(_)), &[of, node]) if is_factor(node) => {
                factors.push(Factor { node, divides: true });
                of
            }
            (Inst::Op(Op::Mul(_)), &[of, node]) if is_factor(node) => {
                factors.push(Factor { node, divides: false });
                of
            }
            (Inst::Op(Op::Mul(_)), &[node, of]) if is_factor(node) => {
                factors.push(Factor { node, divides: false });
                of
            }
            _ => return (factors, at),
        };
    }
}

/// The two parts of a sum of which one is a mean over micro-batches, that one last.
fn added_mean(function: &Function, samples: &[samples::Results], root: NodeId) -> Option<(NodeId, NodeId)> {
    let node = &function.nodes[root];
    let (Inst::Op(Op::Add(_)), &[a, b]) = (&node.inst, node.args.as_slice()) else { return None };
    let is_mean = |id: NodeId| samples[id.index()][..] == [Samples::Sum(Total::Mean)];
    [(a, b), (b, a)].into_iter().find(|(_, mean)| is_mean(*mean))
}

/// That the sums which factors are made of follow from the inputs alone, so that they are there before the first
/// micro-batch.
fn counted_apart(module: &Module, program: &Program, function: &Function, loss: &Loss) -> Result<(), Diagnostics> {
    let params = program.inputs.iter().zip(&function.params);
    let trained = params.filter(|(input, _)| !matches!(input, Input::Feed(_))).map(|(_, p)| p.index()).collect();
    let Some((sum, _)) = loss.sums.iter().find(|(sum, _)| reaches(function, *sum, &trained)) else { return Ok(()) };
    let error = Diagnostic::error("what the loss is divided by is counted together with the loss")
        .note("a mean over micro-batches is added to the quotient, so that the count has to be known before the first of them")
        .help("count in a value of its own what is in the inputs, such as `labels.ne(-100).cast(f32).sum()`; or compile with --microbatches 1");
    Err(diagnostics::at(module, function.nodes[*sum].place, error).into())
}

/// Whether a value follows from one of these nodes.
fn reaches(function: &Function, value: NodeId, nodes: &BTreeSet<usize>) -> bool {
    let mut seen = vec![false; function.nodes.len()];
    let mut open = vec![value];
    while let Some(id) = open.pop() {
        if nodes.contains(&id.index()) {
            return true;
        }
        if !std::mem::replace(&mut seen[id.index()], true) {
            open.extend(&function.nodes[id].args);
        }
    }
    false
}

/// What the parts of a sum over samples make together.
fn total(
    module: &Module,
    function: &Function,
    samples: &[samples::Results],
    root: NodeId,
) -> Result<Total, Diagnostics> {
    let place = function.nodes[root].place;
    match samples[root.index()].first() {
        Some(Samples::Sum(Total::Both)) => {
            let error = Diagnostic::error("the loss adds sums over samples and means over them")
                .help("take the mean of all, or the sum of all; or compile with --microbatches 1");
            Err(diagnostics::at(module, place, error).into())
        }
        Some(Samples::Sum(total)) => Ok(*total),
        Some(&Samples::Mixed(op, place)) => Err(mixed(module, op, place)),
        _ => {
            let error = Diagnostic::error("the loss is no mean over samples")
                .help("take `.mean()`, or divide by a count of what was summed; or compile with --microbatches 1");
            Err(diagnostics::at(module, place, error).into())
        }
    }
}

fn mixed(module: &Module, op: &str, place: diag::PlaceId) -> Diagnostics {
    let error =
        Diagnostic::error(format!("the loss is no sum over samples: `{op}` is taken of a number for all of them"))
            .help("write it as a mean over samples, or as a sum over a count; or compile with --microbatches 1");
    diagnostics::at(module, place, error).into()
}

/// Adds what a factor follows from. It must be a function of sums over samples, so that it can be computed of the sums
/// over all micro-batches.
fn expression(
    module: &Module,
    function: &Function,
    samples: &[samples::Results],
    batch: &Batch<'_>,
    loss: &mut Loss,
    at: usize,
) -> Result<(), Diagnostics> {
    let mut open = vec![loss.factors[at].node];
    while let Some(id) = open.pop() {
        if !loss.expression.insert(id.index()) {
            continue;
        }
        let node = &function.nodes[id];
        let fed = |id: NodeId| samples[id.index()].iter().any(Samples::is_fed);
        match (&samples[id.index()][..], &node.inst) {
            (&[Samples::Sum(total)], _) if total != Total::Both => loss.sums.push((id, total)),
            ([Samples::Sized(_)], Inst::Op(op)) => return Err(mixed(module, op.name(), node.place)),
            ([Samples::Apart(_)], _) => return Err(mixed(module, "a choice", node.place)),
            (_, Inst::Op(op)) => {
                // The number of samples is another in a micro-batch.
                let sized = node.ty.element().is_some_and(|ty| ty.position(&batch.name).is_some());
                let apart = node.args.iter().any(|a| matches!(samples[a.index()][..], [Samples::Apart(_)]));
                if fed(id) && (sized || apart) {
                    return Err(mixed(module, op.name(), node.place));
                }
                open.extend(&node.args);
            }
            (_, Inst::Param(_)) => {}
            _ if fed(id) => return Err(mixed(module, "a call", node.place)),
            _ => open.extend(&node.args),
        }
    }
    Ok(())
}
