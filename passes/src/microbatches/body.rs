//! The functions of one micro-batch: sums so far, what all share and a part of each feed in, the grown sums out.

use ir::{Builder, Function, Id, Input, Inst, Mismatch, Module, NodeId, Program};

use super::loss::Loss;
use crate::autodiff::Derivatives;

/// One sum for each result of `old`. Where the factors of the loss are known before, they are operands behind the
/// parameters; else they are 1, and there is one sum more for each that they are made of.
pub fn of(module: &mut Module, program: &Program, old: &Function, loss: &Loss) -> Result<Id<Function>, Mismatch> {
    let mut results = old.results.clone();
    if loss.beside.is_none() {
        results.extend(loss.sums.iter().map(|(sum, _)| *sum));
    }
    let mut copy = Copy::new(module, old, "microbatch", &results);
    copy.params(program, false);
    for factor in loss.factors.iter().filter(|_| loss.beside.is_some()) {
        copy.map[factor.node.index()] = Some(copy.b.param(old.ty(factor.node).clone()));
    }
    copy.params(program, true);
    copy.grown(module, loss, &results)
}

/// One sum for each that the factors of the loss are made of, of feeds alone.
pub fn counts(module: &mut Module, program: &Program, old: &Function, loss: &Loss) -> Result<Id<Function>, Mismatch> {
    let sums: Vec<NodeId> = loss.sums.iter().map(|(sum, _)| *sum).collect();
    let mut copy = Copy::new(module, old, "counts", &sums);
    copy.params(program, true);
    copy.grown(module, loss, &sums)
}

/// A function under construction, of copies of another's nodes.
struct Copy<'f> {
    old: &'f Function,
    b: Builder,
    map: Vec<Option<NodeId>>,
    carried: Vec<NodeId>,
}

impl<'f> Copy<'f> {
    fn new(module: &Module, old: &'f Function, name: &str, results: &[NodeId]) -> Self {
        let mut b = Builder::new(module.fresh_name(&format!("{}.{name}", old.name)));
        let carried = results.iter().map(|&r| b.param(old.ty(r).clone())).collect();
        Self { old, b, map: vec![None; old.nodes.len()], carried }
    }

    /// Feeds, or all others.
    fn params(&mut self, program: &Program, feeds: bool) {
        let all = program.inputs.iter().zip(&self.old.params);
        for (_, &p) in all.filter(|(i, _)| matches!(i, Input::Feed(_)) == feeds) {
            self.b.place = self.old.nodes[p].place;
            self.map[p.index()] = Some(self.b.param(self.old.ty(p).clone()));
        }
    }

    /// Adds the results to those that are carried.
    fn grown(mut self, module: &mut Module, loss: &Loss, results: &[NodeId]) -> Result<Id<Function>, Mismatch> {
        let old = self.old;
        let is_sum = |id: NodeId| loss.sums.iter().any(|(sum, _)| *sum == id);
        // A sum may be a factor itself: it is added up as it is, and 1 for whom it multiplies or divides.
        let mut own: Vec<Option<NodeId>> = vec![None; old.nodes.len()];
        let live = live(old, loss, results);
        for (id, node) in old.nodes.iter().filter(|(id, _)| live[id.index()]) {
            if self.map[id.index()].is_some() {
                continue;
            }
            self.b.place = node.place;
            let args: Option<Vec<NodeId>> = node.args.iter().map(|a| self.map[a.index()]).collect();
            let copied = args.map(|args| match &node.inst {
                Inst::Op(op) => self.b.op(op.clone(), &args),
                inst => self.b.push(inst.clone(), args, node.ty.clone()),
            });
            if is_sum(id) {
                own[id.index()] = copied;
            }
            let one =
                loss.is_factor(id).then(|| old.ty(id).element().map(|ty| self.b.constant(1.0, ty.dtype))).flatten();
            let new = one.or(copied).ok_or_else(|| Mismatch::new(format!("{id} reads a value that is not there")))?;
            self.map[id.index()] = Some(new);
        }
        let all: Option<Vec<NodeId>> = results.iter().map(|r| own[r.index()].or(self.map[r.index()])).collect();
        let all = all.ok_or_else(|| Mismatch::new("a result is not there"))?;
        let mut derivatives = Derivatives::new(module);
        let grown = self.carried.iter().zip(all).map(|(&sum, x)| derivatives.add(&mut self.b, sum, x));
        self.b.function.results = grown.collect();
        let body = self.b.finish()?;
        Ok(module.functions.add(body))
    }
}

/// Which nodes the results depend on, where the factors are constants.
fn live(old: &Function, loss: &Loss, results: &[NodeId]) -> Vec<bool> {
    let mut live = vec![false; old.nodes.len()];
    results.iter().for_each(|id| live[id.index()] = true);
    for (id, node) in old.nodes.iter().rev() {
        if live[id.index()] && (results.contains(&id) || !loss.is_factor(id)) {
            node.args.iter().for_each(|a| live[a.index()] = true);
        }
    }
    live
}
