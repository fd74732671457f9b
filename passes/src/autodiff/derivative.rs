//! The derivative of a function: a forward that also returns residuals, and a backward that reads them.

use std::collections::HashMap;
use std::rc::Rc;

use diag::{Diagnostic, Diagnostics};
use ir::{Function, Id, Module, NodeId};
use types::TensorType;

use super::copy::Copy;
use super::joint::Joint;
use super::residuals::{self, Residuals, Split};
use super::sums::accumulator;
use crate::diagnostics;

/// What a derivative depends on: functions are differentiated once for each.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key {
    pub callee: Id<Function>,
    /// Carried and shared operands, if the call is a repeated one.
    pub split: Option<(usize, usize)>,
    /// Operands whose cotangents are asked for.
    pub wanted: Vec<bool>,
    /// Results whose cotangents are there.
    pub given: Vec<bool>,
}

/// A forward value that the backward reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    Operand(usize),
    Result(usize),
    /// One more result of the forward function.
    Residual(usize),
}

/// Operands of the backward: cotangents of carried results, sums so far for shared operands, reads, cotangents of other
/// results. Its results: cotangents of carried operands, the sums, cotangents of other operands. Of a plain call the
/// first two of each are empty.
pub struct Derivative {
    pub forward: Id<Function>,
    /// `None` if no operand gets a cotangent.
    pub backward: Option<Id<Function>>,
    pub carried: Vec<usize>,
    pub accumulated: Vec<usize>,
    /// Those that every turn shares stand first.
    pub reads: Vec<Read>,
    pub shared_reads: usize,
    pub cotangents: Vec<usize>,
    pub produced: Vec<usize>,
}

pub struct Derivatives<'m> {
    pub module: &'m mut Module,
    pub sums: HashMap<(String, TensorType, TensorType), Id<Function>>,
    known: HashMap<Key, Rc<Derivative>>,
}

/// The joint graph with the nodes that stand for the backward's parameters, and those of its results.
struct Body {
    joint: Joint,
    /// Cotangents of carried results, then sums.
    before: Vec<NodeId>,
    /// Cotangents of other results.
    after: Vec<NodeId>,
    roots: Vec<NodeId>,
}

impl<'m> Derivatives<'m> {
    pub fn new(module: &'m mut Module) -> Self {
        Self { module, sums: HashMap::new(), known: HashMap::new() }
    }

    pub fn derivative(&mut self, key: Key) -> Result<Rc<Derivative>, Diagnostics> {
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let function = self.module.functions[key.callee].clone();
        let split = match key.split {
            Some((carried, shared)) => Split { carried, shared, repeated: true },
            None => Split { carried: 0, shared: function.params.len(), repeated: false },
        };
        let (mut derivative, body) = self.body(&key, &function, split)?;
        if !body.roots.is_empty() {
            self.close(&mut derivative, &function, split, &body)?;
        }
        let derivative = Rc::new(derivative);
        self.known.insert(key, derivative.clone());
        Ok(derivative)
    }

    /// Builds the joint graph; again if a turn hands a cotangent to the turn before it that the last turn was not given.
    fn body(&mut self, key: &Key, function: &Function, split: Split) -> Result<(Derivative, Body), Diagnostics> {
        let mut given = key.given.clone();
        let (mut joint, seeds, produced) = loop {
            let mut seeds: Vec<Option<NodeId>> = vec![None; given.len()];
            let mut joint = self.joint(function, &key.wanted, &mut |b, i| {
                let ty = function.ty(function.results[i]).clone();
                seeds[i] = given[i].then(|| Joint::placeholder(b, ty));
                seeds[i]
            })?;
            let params = joint.params.clone();
            let produced: Vec<Option<NodeId>> = (params.iter().zip(&key.wanted))
                .map(|(&p, wanted)| joint.cotangent(self, p).filter(|_| *wanted))
                .collect();
            match (0..split.carried).find(|&i| produced[i].is_some() && seeds[i].is_none()) {
                Some(i) if !given[i] => given[i] = true,
                _ => break (joint, seeds, produced),
            }
        };
        let last_shared = split.carried + if split.repeated { split.shared } else { 0 };
        let is_given = |i: &usize| seeds[*i].is_some();
        let is_produced = |i: &usize| produced[*i].is_some();
        let derivative = Derivative {
            forward: key.callee,
            backward: None,
            carried: (0..split.carried).filter(is_given).collect(),
            accumulated: (split.carried..last_shared).filter(is_produced).collect(),
            reads: vec![],
            shared_reads: 0,
            cotangents: (split.carried..seeds.len()).filter(is_given).collect(),
            produced: (last_shared..produced.len()).filter(is_produced).collect(),
        };
        let mut before: Vec<NodeId> = derivative.carried.iter().filter_map(|&i| seeds[i]).collect();
        let mut roots = vec![];
        for &i in &derivative.carried {
            roots.push(match produced[i] {
                Some(cotangent) => cotangent,
                None => {
                    let ty = joint.b.function.ty(joint.params[i]).clone();
                    self.zero(&mut joint.b, &ty)
                }
            });
        }
        for (i, cotangent) in derivative.accumulated.iter().filter_map(|&i| Some((i, produced[i]?))) {
            let ty = accumulator(joint.b.function.ty(joint.params[i]));
            let sum = Joint::placeholder(&mut joint.b, ty.clone());
            before.push(sum);
            let cotangent = match ty.tensor() {
                Some(wide) => joint.b.cast(cotangent, wide.dtype),
                None => cotangent,
            };
            roots.push(self.add(&mut joint.b, sum, cotangent));
        }
        roots.extend(derivative.produced.iter().filter_map(|&i| produced[i]));
        let after = derivative.cotangents.iter().filter_map(|&i| seeds[i]).collect();
        Ok((derivative, Body { joint, before, after, roots }))
    }

    /// Cuts the joint graph into the two functions.
    fn close(
        &mut self,
        derivative: &mut Derivative,
        function: &Function,
        split: Split,
        body: &Body,
    ) -> Result<(), Diagnostics> {
        let joint = &body.joint;
        let unfit = |m: ir::Mismatch| diagnostics::unfit("autodiff", function, &m);
        // A body that holds stacks of its own cannot have them stacked again, so it computes them again.
        let (residuals, recompute) = match residuals::choose(joint, function, split, &body.roots, function.recompute) {
            Ok(residuals) => (residuals, function.recompute),
            Err(_) => match residuals::choose(joint, function, split, &body.roots, true) {
                Ok(residuals) => (residuals, true),
                Err(_) => {
                    let message = format!("the gradient of @{} needs each turn's own stack", function.name);
                    return Err(Diagnostic::internal(message).help("carry tensors, or share the stack").into());
                }
            },
        };
        if !residuals.saved.is_empty() {
            let name = self.module.fresh_name(&format!("{}.fwd", function.name));
            let forward = if recompute {
                let mut forward = Function { name, recompute: false, ..function.clone() };
                let saved = residuals.saved.iter().filter_map(|s| joint.params.iter().position(|p| p == s));
                forward.results.extend(saved.map(|i| function.params[i]));
                forward
            } else {
                let mut copy = Copy::new(name);
                for &p in &joint.params {
                    copy.param(joint, p);
                }
                let roots: Vec<NodeId> = joint.results.iter().chain(&residuals.saved).copied().collect();
                copy.finish(joint, &roots).map_err(unfit)?
            };
            derivative.forward = self.module.functions.add(forward);
        }
        let reads = ordered(residuals);
        let mut copy = Copy::new(self.module.fresh_name(&format!("{}.bwd", function.name)));
        for &node in body.before.iter().chain(reads.iter().map(|(node, _)| node)).chain(&body.after) {
            copy.param(joint, node);
        }
        let backward = copy.finish(joint, &body.roots).map_err(unfit)?;
        derivative.backward = Some(self.module.functions.add(backward));
        let shared =
            |read: &Read| matches!(read, Read::Operand(i) if split.repeated && *i < split.carried + split.shared);
        derivative.reads = reads.into_iter().map(|(_, read)| read).collect();
        derivative.shared_reads = derivative.reads.iter().filter(|r| shared(r)).count();
        Ok(())
    }
}

/// Operands in their order (so shared ones before stacked ones), then results, then residuals.
fn ordered(residuals: Residuals) -> Vec<(NodeId, Read)> {
    let mut reads = residuals.reads;
    reads.sort_by_key(|(_, read)| match *read {
        Read::Operand(i) => (0, i),
        Read::Result(i) => (1, i),
        Read::Residual(i) => (2, i),
    });
    reads
}
