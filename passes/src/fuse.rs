//! `fuse`: a repeated call and the one that computes its body again become one, so that nothing is computed twice.
//!
//! A body is marked `recompute` where its intermediate values shall not be kept for the backward. If the backward waits for
//! no more than a small part of what the body gives (a loss taken chunk by chunk gives a count, by which its gradient is
//! divided), that part is computed ahead, and each turn of the backward does the rest of the forward's turn as well;
//! `simplify` finds what the two have in common. Values carried from turn to turn must be sums: turns come in the
//! backward's order.

use diag::Diagnostics;
use ir::{Builder, Call, Function, FunctionKind, Id, Inst, Mismatch, Module, NodeId, Op, Rewriter, Type};
use serde::{Deserialize, Serialize};

use crate::hoist_collectives::{Calls, result};
use crate::{Context, Pass, callgraph, diagnostics};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fuse {}

/// What is computed ahead, and again, is at most one part in so many of the work.
const SMALL: u64 = 50;

impl Pass for Fuse {
    fn run(&self, module: &mut Module, cx: &mut Context<'_>) -> Result<(), Diagnostics> {
        for caller in module.functions.ids().collect::<Vec<_>>() {
            if module.functions[caller].kind != FunctionKind::Plain {
                continue;
            }
            while let Some(pair) = Pair::first(module, caller) {
                pair.fuse(module, caller).map_err(|m| diagnostics::unfit("fuse", &module.functions[caller], &m))?;
                cx.stats.count("calls fused with their backward", 1);
            }
        }
        callgraph::sweep(module);
        Ok(())
    }
}

/// Two repeated calls of one caller.
struct Pair {
    first: (NodeId, Call),
    second: (NodeId, Call),
    /// Results of the first that the second waits for, and the others.
    ahead: Vec<usize>,
    rest: Vec<usize>,
}

impl Pair {
    fn first(module: &Module, caller: Id<Function>) -> Option<Self> {
        let function = &module.functions[caller];
        let only = Calls::of(module, function);
        let calls: Vec<(NodeId, &Call)> = function
            .nodes
            .iter()
            .filter_map(|(id, node)| Some((id, only.only(&node.inst)?)))
            .filter(|(_, call)| call.times.is_some_and(|times| times > 1))
            .collect();
        let marked = calls.iter().filter(|(_, call)| module.functions[call.callee].recompute);
        marked.into_iter().find_map(|&(first, call)| {
            let later = calls.iter().filter(|&&(id, other)| id > first && other.times == call.times);
            later.into_iter().find_map(|&(second, other)| Self::of(module, function, (first, call), (second, other)))
        })
    }

    fn of(module: &Module, caller: &Function, first: (NodeId, &Call), second: (NodeId, &Call)) -> Option<Self> {
        let stacked = |(id, call): (NodeId, &Call)| caller.nodes[id].args[call.carried + call.shared..].to_vec();
        let theirs = stacked(second);
        let callee = &module.functions[first.1.callee];
        if !stacked(first).iter().any(|arg| theirs.contains(arg)) {
            return None;
        }
        let waits = caller.ancestors([second.0]);
        let awaited = |index: usize| {
            let is = |id: NodeId, node: &ir::Node| match node.inst {
                Inst::Get(i) => i == index && node.args[0] == first.0,
                _ => id == first.0 && callee.results.len() == 1,
            };
            caller.nodes.iter().any(|(id, node)| waits[id.index()] && is(id, node))
        };
        let (ahead, rest): (Vec<usize>, Vec<usize>) = (0..callee.results.len()).partition(|&i| awaited(i));
        let apart = |part: &[usize], other: &[usize]| {
            let live = slice(callee, part);
            other.iter().filter(|&&i| i < first.1.carried).all(|&i| !live[callee.params[i].index()])
        };
        let sums = rest.iter().filter(|&&i| i < first.1.carried).all(|&i| is_sum(callee, i));
        let plain = callee.nodes.iter().all(|(_, node)| !matches!(node.inst, Inst::Call(_)));
        if rest.is_empty() || !plain || !sums || !apart(&ahead, &rest) || !apart(&rest, &ahead) {
            return None;
        }
        let small = target::flops(&part(callee, &first.1.clone(), &ahead).0) * SMALL <= target::flops(callee);
        let owned = |(id, call): (NodeId, &Call)| (id, call.clone());
        small.then(|| Self { first: owned(first), second: owned(second), ahead, rest })
    }

    fn fuse(&self, module: &mut Module, caller: Id<Function>) -> Result<(), Mismatch> {
        let old = module.functions[caller].clone();
        let callees = [&self.first.1, &self.second.1].map(|call| module.functions[call.callee].clone());
        let ahead = (!self.ahead.is_empty()).then(|| {
            let (mut function, call) = part(&callees[0], &self.first.1, &self.ahead);
            function.name = module.fresh_name(&format!("{}.ahead", callees[0].name));
            (function, call)
        });
        let mut joint = Joint::new(module.fresh_name(&format!("{}.fused", callees[0].name)), &self.second.1);
        joint.add(&callees[0], &self.first, &old, &self.rest);
        joint.add(&callees[1], &self.second, &old, &(0..callees[1].results.len()).collect::<Vec<_>>());
        let (function, mut call, operands, places) = joint.finish()?;
        call.callee = module.functions.add(function);
        let ahead = ahead.map(|(function, (mut call, operands))| {
            call.callee = module.functions.add(function);
            (call, operands)
        });

        let gone = depends_on(&old, self.first.0, &self.ahead);
        let mut r = Rewriter::new(&old);
        let (mut early, mut fused, mut waiting) = (None, None, vec![]);
        let live = old.live();
        for (id, node) in old.nodes.iter().filter(|(id, _)| live[id.index()]) {
            r.b.place = node.place;
            if id == self.first.0
                && let Some((call, operands)) = &ahead
            {
                let args: Vec<NodeId> = operands.iter().map(|&i| r.get(node.args[i])).collect();
                let types = self.ahead.iter().map(|&i| item(&node.ty, i)).collect();
                early = Some(r.b.push(Inst::Call(call.clone()), args, tuple(types)));
            }
            if id == self.second.0 {
                let args: Vec<NodeId> = operands.iter().map(|&arg| r.get(arg)).collect();
                let all = r.b.push(Inst::Call(call.clone()), args, tuple(self.types(&old, &places)));
                fused = Some(all);
                for late in std::mem::take(&mut waiting) {
                    self.place(&mut r, late, (early, all), &places);
                }
            }
            match fused {
                Some(all) => self.place(&mut r, id, (early, all), &places),
                None if gone[id.index()] => waiting.push(id),
                None if !r.done(id) => match (&node.inst, early) {
                    (Inst::Get(i), Some(early)) if node.args[0] == self.first.0 => {
                        let index = self.ahead.iter().position(|ahead| ahead == i);
                        let new = result(&mut r.b, early, index.unwrap_or(0));
                        r.set(id, new);
                    }
                    _ if id == self.first.0 => {
                        if let Some(early) = early {
                            r.set(id, early);
                        }
                    }
                    _ => {
                        r.copy(id);
                    }
                },
                None => {}
            }
        }
        let mut new = {
            let results = old.results.iter().map(|&result| r.get(result)).collect();
            let mut function = r.b.finish()?;
            function.results = results;
            function
        };
        new.recompute = old.recompute;
        module.functions[caller] = new;
        Ok(())
    }

    /// The results of both calls in one, under the names of dims that the caller has for them.
    fn types(&self, caller: &Function, places: &[Vec<Option<usize>>; 2]) -> Vec<Type> {
        let mut types: Vec<(usize, Type)> = vec![];
        for (places, (id, _)) in places.iter().zip([&self.first, &self.second]) {
            let placed = places.iter().enumerate().filter_map(|(i, place)| Some((i, (*place)?)));
            types.extend(placed.map(|(i, place)| (place, item(&caller.nodes[*id].ty, i))));
        }
        types.sort_by_key(|(place, _)| *place);
        types.into_iter().map(|(_, ty)| ty).collect()
    }

    /// Copies a node of the caller that comes once both calls are one: `places` has where results of the two are.
    fn place(
        &self,
        r: &mut Rewriter<'_>,
        id: NodeId,
        (early, all): (Option<NodeId>, NodeId),
        places: &[Vec<Option<usize>>; 2],
    ) {
        let node = &r.from.nodes[id];
        r.b.place = node.place;
        let sides = [self.first.0, self.second.0];
        let side = |id: NodeId| sides.iter().position(|&side| side == id);
        let (of, index) = match node.inst {
            Inst::Get(index) => (side(node.args[0]), index),
            _ => (side(id), 0),
        };
        let whole = matches!(node.ty, Type::Tuple(_)) && side(id).is_some();
        match of {
            // The tuple of a call is read by its items alone.
            Some(_) if whole => {}
            Some(side) => {
                let new = match (places[side][index], early) {
                    (Some(place), _) => result(&mut r.b, all, place),
                    (None, Some(early)) => {
                        let index = self.ahead.iter().position(|&ahead| ahead == index);
                        result(&mut r.b, early, index.unwrap_or(0))
                    }
                    (None, None) => all,
                };
                r.set(id, new);
            }
            None if !r.done(id) => {
                r.copy(id);
            }
            None => {}
        }
    }
}

fn item(ty: &Type, index: usize) -> Type {
    ty.items().get(index).unwrap_or(ty).clone()
}

fn tuple(mut types: Vec<Type>) -> Type {
    if types.len() == 1 { types.remove(0) } else { Type::Tuple(types) }
}

/// Whether a carried value is what came in and something more.
fn is_sum(callee: &Function, index: usize) -> bool {
    let (param, grown) = (callee.params[index], callee.results[index]);
    let adds = matches!(&callee.nodes[grown].inst, Inst::Op(Op::Add(_)));
    let users = callee.users();
    let once = callee.nodes[grown].args.iter().filter(|&&arg| arg == param).count() == 1;
    adds && once
        && users[param.index()].as_slice() == [grown]
        && users[grown.index()].is_empty()
        && callee.results.iter().filter(|&&r| r == grown || r == param).count() == 1
}

/// What some results of a function are computed from.
fn slice(function: &Function, results: &[usize]) -> Vec<bool> {
    function.ancestors(results.iter().map(|&i| function.results[i]))
}

/// What depends on results of a call other than those computed `ahead`.
fn depends_on(function: &Function, call: NodeId, ahead: &[usize]) -> Vec<bool> {
    let mut late = vec![false; function.nodes.len()];
    for (id, node) in function.nodes.iter() {
        late[id.index()] = match node.inst {
            Inst::Get(i) if node.args[0] == call => !ahead.contains(&i),
            _ if id == call => !matches!(node.ty, Type::Tuple(_)) && ahead.is_empty(),
            _ => node.args.iter().any(|arg| late[arg.index()]),
        };
    }
    late
}

/// The repeated call that gives some results alone: its callee, the call, and which operands it takes.
fn part(callee: &Function, call: &Call, results: &[usize]) -> (Function, (Call, Vec<usize>)) {
    let live = slice(callee, results);
    let operands: Vec<usize> = (0..callee.params.len())
        .filter(|i| results.contains(i) && *i < call.carried || *i >= call.carried && live[callee.params[*i].index()])
        .collect();
    let mut b = Builder::new(callee.name.clone());
    let mut map = vec![None; callee.nodes.len()];
    for &i in &operands {
        b.place = callee.nodes[callee.params[i]].place;
        map[callee.params[i].index()] = Some(b.param(callee.ty(callee.params[i]).clone()));
    }
    copy(&mut b, callee, &live, &mut map);
    b.function.results = results.iter().filter_map(|&i| map[callee.results[i].index()]).collect();
    let within = |from: usize, to: usize| operands.iter().filter(|i| (from..to).contains(i)).count();
    let call = Call {
        carried: within(0, call.carried),
        shared: within(call.carried, call.carried + call.shared),
        ..call.clone()
    };
    (b.function, (call, operands))
}

/// Adds the live nodes of `from` whose place in `map` is empty.
fn copy(b: &mut Builder, from: &Function, live: &[bool], map: &mut [Option<NodeId>]) {
    for (id, node) in from.nodes.iter().filter(|(id, _)| live[id.index()]) {
        if map[id.index()].is_none() {
            b.place = node.place;
            let args: Vec<NodeId> = node.args.iter().filter_map(|arg| map[arg.index()]).collect();
            map[id.index()] = Some(b.push(node.inst.clone(), args, node.ty.clone()));
        }
    }
}

/// A callee made of two, and the call of it.
struct Joint<'f> {
    name: types::Name,
    call: Call,
    sides: Vec<Side<'f>>,
}

struct Side<'f> {
    callee: &'f Function,
    call: &'f Call,
    args: &'f [NodeId],
    results: Vec<usize>,
}

/// The callee, its call, the operands in the caller, and of each side the place of each result.
type Made = (Function, Call, Vec<NodeId>, [Vec<Option<usize>>; 2]);

impl<'f> Joint<'f> {
    fn new(name: types::Name, call: &Call) -> Self {
        Self { name, call: call.clone(), sides: vec![] }
    }

    fn add(&mut self, callee: &'f Function, (id, call): &'f (NodeId, Call), caller: &'f Function, results: &[usize]) {
        self.sides.push(Side { callee, call, args: &caller.nodes[*id].args, results: results.to_vec() });
    }

    fn finish(self) -> Result<Made, Mismatch> {
        let mut b = Builder::new(self.name);
        let lives: Vec<Vec<bool>> = self.sides.iter().map(|side| slice(side.callee, &side.results)).collect();
        let mut maps: Vec<Vec<Option<NodeId>>> =
            self.sides.iter().map(|side| vec![None; side.callee.nodes.len()]).collect();
        let mut operands: Vec<NodeId> = vec![];
        let mut counts = [0; 3];
        // Carried operands, then shared and stacked ones, of which those that both sides read come in once.
        for (role, count) in counts.iter_mut().enumerate() {
            let start = operands.len();
            let mut params: Vec<NodeId> = vec![];
            for (s, side) in self.sides.iter().enumerate() {
                let ends = [0, side.call.carried, side.call.carried + side.call.shared, side.args.len()];
                for i in ends[role]..ends[role + 1] {
                    let param = side.callee.params[i];
                    let wanted = if role == 0 { side.results.contains(&i) } else { lives[s][param.index()] };
                    if !wanted {
                        continue;
                    }
                    let (arg, ty) = (side.args[i], side.callee.ty(param));
                    let known = operands[start..].iter().zip(&params);
                    let known = known.filter(|_| role > 0).find(|&(&a, &p)| a == arg && b.function.ty(p) == ty);
                    let known = known.map(|(_, &param)| param);
                    b.place = side.callee.nodes[param].place;
                    maps[s][param.index()] = Some(known.unwrap_or_else(|| {
                        let new = b.param(ty.clone());
                        operands.push(arg);
                        params.push(new);
                        new
                    }));
                }
            }
            *count = operands.len() - start;
        }
        for (s, side) in self.sides.iter().enumerate() {
            copy(&mut b, side.callee, &lives[s], &mut maps[s]);
        }
        let mut places = [0, 1].map(|s: usize| vec![None; self.sides[s].callee.results.len()]);
        for carried in [true, false] {
            for (s, side) in self.sides.iter().enumerate() {
                for &i in side.results.iter().filter(|&&i| (i < side.call.carried) == carried) {
                    places[s][i] = Some(b.function.results.len());
                    b.function.results.extend(maps[s][side.callee.results[i].index()]);
                }
            }
        }
        let call = Call { carried: counts[0], shared: counts[1], ..self.call };
        Ok((b.finish()?, call, operands, places))
    }
}
