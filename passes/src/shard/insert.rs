//! Writes the shardings into the module, with a `reshard` wherever a value is held in another way than it is used.

use std::collections::HashMap;

use diag::Diagnostics;
use ir::{
    Arena, Assignment, Axes, Builder, Call, Function, Id, Inst, Mismatch, Module, NodeId, Output, PartialKind,
    Sharding, Type, ops,
};
use types::{Name, TensorType};

use super::assign::Around;
use super::assignment::{AxisAssignment, names};
use super::propagate::exchanged;
use super::seed;
use super::why;

pub fn reshards(module: &mut Module, table: &AxisAssignment) -> Result<(), Diagnostics> {
    let borders = borders(module, table);
    let exchange = exchanged(module);
    let mut out = Out { functions: Arena::default(), ids: vec![] };
    for (id, function) in module.functions.iter() {
        let writer = Writer { module, table, borders: &borders, exchange: &exchange, id, function };
        let new = writer.write(&mut out)?;
        let new = out.functions.add(new);
        out.ids.push(new);
    }
    for program in &mut module.programs {
        program.function = out.ids[program.function.index()];
    }
    module.functions = out.functions;
    Ok(())
}

struct Out {
    functions: Arena<Function>,
    /// Of the old functions.
    ids: Vec<Id<Function>>,
}

/// How each result of each function is handed over.
fn borders(module: &Module, table: &AxisAssignment) -> Vec<Vec<Sharding>> {
    let of = |f: Id<Function>, n: NodeId| sharding(table, (f, n, 0));
    let mut borders: Vec<Vec<Sharding>> =
        module.functions.iter().map(|(id, f)| f.results.iter().map(|&r| of(id, r)).collect()).collect();
    for (_, function) in module.functions.iter() {
        for (_, node) in function.nodes.iter() {
            let Inst::Call(call) = &node.inst else { continue };
            let callee = &module.functions[call.callee];
            let carried = if call.times.is_some() { call.carried } else { 0 };
            for (border, &param) in borders[call.callee.index()].iter_mut().zip(&callee.params).take(carried) {
                *border = of(call.callee, param);
            }
        }
    }
    for program in &module.programs {
        for (i, output) in program.outputs.iter().enumerate() {
            let home = module.programs.iter().find_map(|p| {
                let function = &module.functions[p.function];
                let same = |input: &ir::Input| match (input, output) {
                    (ir::Input::Parameter(a), Output::Parameter(b)) | (ir::Input::State(a), Output::State(b)) => a == b,
                    _ => false,
                };
                p.inputs.iter().position(same).map(|k| of(p.function, function.params[k]))
            });
            if let Some(home) = home {
                borders[program.function.index()][i] = home;
            }
        }
    }
    borders
}

fn sharding(table: &AxisAssignment, site: super::assignment::Site) -> Sharding {
    Sharding::of_axes(table.at(site).iter().map(|d| names(d)))
}

struct Writer<'a> {
    module: &'a Module,
    table: &'a AxisAssignment,
    borders: &'a [Vec<Sharding>],
    exchange: &'a [Name],
    id: Id<Function>,
    function: &'a Function,
}

/// The new function so far.
struct State {
    b: Builder,
    map: Vec<Option<NodeId>>,
    known: HashMap<(NodeId, Vec<Axes>), NodeId>,
}

impl State {
    fn get(&self, old: NodeId) -> NodeId {
        self.map[old.index()].expect("operands are written before their users")
    }

    fn held(&self, id: NodeId) -> Sharding {
        self.b.node(id).sharding(0)
    }

    /// `x` as `want` has it; reshards of one value to one sharding are shared.
    fn need(
        &mut self,
        out: &mut Out,
        x: NodeId,
        want: &Sharding,
        why: impl FnOnce(&Sharding, &TensorType) -> Name,
    ) -> NodeId {
        let held = self.held(x);
        if held.same(want) {
            return x;
        }
        let ty = self.b.function.ty(x).clone();
        let Some(element) = ty.element() else { return x };
        let key = (x, (0..element.rank()).map(|d| want.axes(d).iter().cloned().collect()).collect());
        if let Some(&id) = self.known.get(&key) {
            return id;
        }
        let op = ops::Reshard { why: why(&held, element) };
        let new = match &ty {
            Type::Stack { count, .. } => {
                let (function, call) = one_by_one(out, element, &held, want, op, *count);
                let callee = out.functions[function].clone();
                self.b.call(call, &callee, &[x])
            }
            _ => self.b.op(op, &[x]),
        };
        self.b.function.nodes[new].shardings = [want.clone()].into_iter().collect();
        self.known.insert(key, new);
        new
    }
}

/// A function that reshards one element of a stack, and the calls of it for all.
fn one_by_one(
    out: &mut Out,
    ty: &TensorType,
    held: &Sharding,
    want: &Sharding,
    op: ops::Reshard,
    count: usize,
) -> (Id<Function>, Call) {
    let mut b = Builder::new(format!("reshard.{}", out.functions.len()));
    let x = b.param(ty.clone());
    b.function.nodes[x].shardings = [held.clone()].into_iter().collect();
    let y = b.op(op, &[x]);
    b.function.nodes[y].shardings = [want.clone()].into_iter().collect();
    b.function.results = vec![y];
    let id = out.functions.add(b.function);
    (id, Call { callee: id, times: Some(count), carried: 0, shared: 0, reverse: false })
}

/// Parts of a softmax are closed together, where they arise.
fn merged(s: &mut State, id: NodeId, source: &Inst) -> NodeId {
    let Inst::Op(op) = source else { return id };
    let is_merge = |(_, kind): &(Name, PartialKind)| *kind == PartialKind::Merge;
    let held = s.b.node(id).shardings.clone();
    if !held.iter().any(|held| held.partial.iter().any(is_merge)) {
        return id;
    }
    let parts = s.b.results(id);
    for (&part, held) in parts.iter().zip(&held) {
        s.b.function.nodes[part].shardings = [held.clone()].into_iter().collect();
    }
    let whole = s.b.op(ops::Reshard { why: why::partial(&held[0], op.name()) }, &parts);
    let want = held
        .into_iter()
        .map(|held| Sharding { partial: held.partial.into_iter().filter(|p| !is_merge(p)).collect(), ..held });
    s.b.function.nodes[whole].shardings = want.collect();
    whole
}

impl Writer<'_> {
    fn write(&self, out: &mut Out) -> Result<Function, Diagnostics> {
        let empty = Function {
            name: self.function.name.clone(),
            kind: self.function.kind,
            recompute: self.function.recompute,
            ..Function::default()
        };
        let b = Builder::extend(empty);
        let mut s = State { b, map: vec![None; self.function.nodes.len()], known: HashMap::new() };
        for &p in &self.function.params {
            s.b.place = self.function.nodes[p].place;
            let new = s.b.param(self.function.ty(p).clone());
            s.b.function.nodes[new].shardings = [sharding(self.table, (self.id, p, 0))].into_iter().collect();
            s.map[p.index()] = Some(new);
        }
        let live = self.function.live();
        for id in self.function.nodes.ids().filter(|id| live[id.index()]) {
            if s.map[id.index()].is_none() {
                s.b.place = self.function.nodes[id].place;
                let new = self.node(out, &mut s, id)?;
                s.map[id.index()] = Some(new);
            }
        }
        let mut results = vec![];
        for (i, &r) in self.function.results.iter().enumerate() {
            let border = &self.borders[self.id.index()][i];
            s.b.place = self.function.nodes[r].place;
            let x = s.get(r);
            results.push(s.need(out, x, border, |held, ty| why::border(held, border, ty, &self.function.name)));
        }
        let mut function = s.b.finish().map_err(|m| self.internal(&m))?;
        function.results = results;
        Ok(function)
    }

    fn internal(&self, mismatch: &Mismatch) -> Diagnostics {
        diag::Diagnostic::internal(format!("@{} cannot be sharded: {mismatch}", self.function.name)).into()
    }

    fn node(&self, out: &mut Out, s: &mut State, id: NodeId) -> Result<NodeId, Diagnostics> {
        let node = &self.function.nodes[id];
        let (args, shardings): (Vec<NodeId>, Vec<Sharding>) = match &node.inst {
            Inst::Param(_) => (vec![], vec![]),
            Inst::Get(i) => {
                let tuple = s.get(node.args[0]);
                let held = s.b.node(tuple).sharding(*i);
                let get = s.b.push(node.inst.clone(), [tuple], node.ty.clone());
                s.b.function.nodes[get].shardings = [held].into_iter().collect();
                return Ok(self.settle(out, s, id, get, &self.function.nodes[node.args[0]].inst));
            }
            Inst::Repeat { .. } => (vec![s.get(node.args[0])], vec![s.held(s.get(node.args[0]))]),
            Inst::Chunk { .. } | Inst::Unchunk => {
                let x = s.get(node.args[0]);
                let mut want = s.held(x);
                want.partial.clear();
                if let Some(first) = want.dims.first_mut() {
                    first.axes.clear();
                }
                let x = s.need(out, x, &want, |held, ty| why::operand(held, &want, ty, "chunk"));
                (vec![x], vec![want])
            }
            Inst::Call(call) => return Ok(self.call(out, s, id, call)),
            Inst::Op(op) => {
                let factors = self.table.factors[self.id.index()][id.index()].as_ref();
                let Some(factors) = factors else { return Err(self.internal(&Mismatch::new("an operator of stacks"))) };
                let around = Around {
                    op,
                    factors,
                    args: node.args.iter().map(|&a| self.table.at((self.id, a, 0))).collect(),
                    results: self.table.functions[self.id.index()][id.index()].iter().collect(),
                    exchange: self.exchange,
                };
                let cuts = around.cuts(&self.table.mesh);
                if let Some((message, help)) = around.unexchanged(&self.table.mesh, &cuts) {
                    return Err(seed::at(self.module, node.place, message).help(help).into());
                }
                let assignment = Assignment(cuts.iter().map(|c| names(c)).collect());
                let mut args = vec![];
                for (i, &arg) in node.args.iter().enumerate() {
                    let want = assignment.operand(factors, i);
                    let x = s.get(arg);
                    args.push(s.need(out, x, &want, |held, ty| why::operand(held, &want, ty, op.name())));
                }
                let results = (0..factors.results.len()).map(|i| assignment.result(factors, i)).collect();
                (args, results)
            }
        };
        let new = s.b.push(node.inst.clone(), args, node.ty.clone());
        s.b.function.nodes[new].shardings = shardings.into();
        let new = merged(s, new, &node.inst);
        Ok(self.settle(out, s, id, new, &node.inst))
    }

    fn call(&self, out: &mut Out, s: &mut State, id: NodeId, call: &Call) -> NodeId {
        let node = &self.function.nodes[id];
        let callee = &self.module.functions[call.callee];
        let mut args = vec![];
        for (&arg, &param) in node.args.iter().zip(&callee.params) {
            let want = sharding(self.table, (call.callee, param, 0));
            let x = s.get(arg);
            args.push(s.need(out, x, &want, |held, ty| why::operand(held, &want, ty, &callee.name)));
        }
        let borders = self.borders[call.callee.index()].clone();
        let call = Call { callee: out.ids[call.callee.index()], ..call.clone() };
        let new = s.b.push(Inst::Call(call), args, node.ty.clone());
        s.b.function.nodes[new].shardings = borders.into();
        new
    }

    /// Sums over ranks are completed where they arise, in parts where the value is held in parts.
    fn settle(&self, out: &mut Out, s: &mut State, old: NodeId, new: NodeId, source: &Inst) -> NodeId {
        let held = s.held(new);
        if held.partial.is_empty() || matches!(s.b.function.ty(new), Type::Tuple(_)) {
            return new;
        }
        let wished = self.table.at((self.id, old, 0));
        let mut want = Sharding { partial: Default::default(), ..held.clone() };
        for (d, dim) in want.dims.iter_mut().enumerate() {
            let wished = names(&wished[d]);
            if wished.starts_with(&dim.axes) {
                let rest = &wished[dim.axes.len()..];
                let sums =
                    rest.iter().take_while(|a| held.partial.iter().any(|(p, k)| p == *a && *k == PartialKind::Sum));
                dim.axes.extend(sums.cloned());
            }
        }
        let by = match source {
            Inst::Op(op) => op.name().to_owned(),
            _ => self.function.name.to_string(),
        };
        s.need(out, new, &want, |held, _| why::partial(held, &by))
    }
}
