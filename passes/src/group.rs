//! `group`: asks the target how each function falls into kernels, and outlines them; equal kernels are one function.

mod chain;
mod identity;
mod phase;

use std::collections::{BTreeMap, HashMap, HashSet};

use diag::{Diagnostics, PlaceId};
use ir::{Builder, Call, Class, Function, FunctionKind, Id, Inst, Mismatch, Module, Node, NodeId};
use smallvec::SmallVec;
use target::Target;

use self::identity::Identity;
use crate::diagnostics;

/// After it, every operator that is no view stands in a function of kind `Kernel`, and those come first in the module.
/// With `stages`, no kernel is of several parts of a step that a pipeline may have on different ranks or at different times.
pub fn group(module: &mut Module, target: &dyn Target, stages: bool) -> Result<(), Diagnostics> {
    let parts = if stages { parts(module) } else { vec![] };
    let mut kernels = Kernels::default();
    let mut outlined = vec![];
    for (id, function) in module.functions.iter() {
        let mut groups = target.group(function);
        if let Some(parts) = parts.get(id.index()) {
            groups = groups.iter().flat_map(|group| apart(function, group, parts)).collect();
        }
        outlined.push(outline(function, groups, &mut kernels).map_err(|m| diagnostics::unfit("group", function, &m))?);
    }
    // Kernels stand before all functions that call them, so callees move up by their number.
    let count = kernels.functions.len();
    let mut functions = ir::Arena::default();
    for kernel in kernels.functions {
        functions.add(kernel);
    }
    for (mut function, calls) in outlined {
        for (id, node) in function.nodes.iter_mut() {
            if let Inst::Call(call) = &mut node.inst
                && !calls.contains(&id)
            {
                call.callee = Id::new(call.callee.index() + count);
            }
        }
        functions.add(function);
    }
    for program in &mut module.programs {
        program.function = Id::new(program.function.index() + count);
    }
    module.functions = functions;
    Ok(())
}

/// What a pipeline may part: where along the chain of blocks, and whether in the forward, the backward or the update.
type Part = (chain::Link, phase::Phase);

/// By function and node.
fn parts(module: &Module) -> Vec<Vec<Part>> {
    let chain = chain::chain(module);
    let phases = phase::phases(module, &chain);
    let both = chain.links.into_iter().zip(phases);
    let mut parts: Vec<Vec<Part>> = both.map(|(links, phases)| links.into_iter().zip(phases).collect()).collect();
    for ((_, function), parts) in module.functions.iter().zip(&mut parts) {
        for (id, node) in function.nodes.iter() {
            // Another name for a value goes where the value is made.
            let renames = match &node.inst {
                Inst::Get(_) => true,
                Inst::Op(op) => op.class() == Class::View,
                _ => false,
            };
            if let (true, Some(of)) = (renames, node.args.first())
                && matches!(function.nodes[*of].inst, Inst::Op(_) | Inst::Get(_))
            {
                parts[id.index()] = parts[of.index()];
            }
        }
    }
    parts
}

/// A group as groups of one part each. What comes behind another part's work is a group of its own, so that groups still do
/// not depend on each other in a circle.
fn apart(function: &Function, group: &[NodeId], parts: &[Part]) -> Vec<Vec<NodeId>> {
    let mut members = group.to_vec();
    members.sort_unstable();
    let mut crossings: HashMap<NodeId, usize> = HashMap::new();
    let mut groups: BTreeMap<(usize, Part), Vec<NodeId>> = BTreeMap::new();
    for id in members {
        let part = parts[id.index()];
        let before = function.nodes[id].args.iter().filter_map(|arg| {
            let before = crossings.get(arg)?;
            Some(before + usize::from(parts[arg.index()] != part))
        });
        let count = before.max().unwrap_or(0);
        crossings.insert(id, count);
        groups.entry((count, part)).or_default().push(id);
    }
    groups.into_values().collect()
}

#[derive(Default)]
struct Kernels {
    functions: Vec<Function>,
    known: HashMap<Identity, usize>,
}

/// The function over kernel calls, and which of its nodes those are.
fn outline(
    function: &Function,
    groups: Vec<Vec<NodeId>>,
    kernels: &mut Kernels,
) -> Result<(Function, HashSet<NodeId>), Mismatch> {
    let own = groups.len();
    let groups = complete(function, groups);
    let mut group_of: Vec<Option<usize>> = vec![None; function.nodes.len()];
    for (g, members) in groups.iter().enumerate() {
        for id in members {
            group_of[id.index()] = Some(g);
        }
    }
    let live = function.live();
    let (users, returned) = (function.users(), function.returned());
    let mut b = Builder::new(function.name.clone());
    (b.function.kind, b.function.recompute) = (function.kind, function.recompute);
    let mut map: Vec<Option<NodeId>> = vec![None; function.nodes.len()];
    let mut calls = HashSet::new();
    for &p in &function.params {
        b.place = function.nodes[p].place;
        map[p.index()] = Some(b.param(function.ty(p).clone()));
    }
    for unit in order(function, &groups, &group_of)? {
        match unit {
            Unit::Node(id) => {
                let node = &function.nodes[id];
                if !live[id.index()] || map[id.index()].is_some() {
                    continue;
                }
                let args: Vec<NodeId> = node.args.iter().filter_map(|a| map[a.index()]).collect();
                b.place = node.place;
                map[id.index()] = Some(b.push(node.inst.clone(), args, node.ty.clone()));
            }
            Unit::Group(g) => {
                let members = &groups[g];
                let kernel = Kernel::cut(function, members, (&users, &returned), (&group_of, own), g);
                if kernel.results.is_empty() {
                    continue;
                }
                let index = kernels.intern(&kernel.function);
                let args: Vec<NodeId> = kernel.operands.iter().filter_map(|a| map[a.index()]).collect();
                // The last member names the kernel's place: it is what the user sees computed.
                b.place = members.last().map_or(PlaceId::NONE, |&m| function.nodes[m].place);
                let call = Call::once(Id::new(index));
                let id = b.push(Inst::Call(call), args, kernel.call_type(function));
                calls.insert(id);
                let results = b.results(id);
                for (&old, &new) in kernel.results.iter().zip(&results) {
                    map[old.index()] = Some(new);
                }
            }
        }
    }
    let results = function.results.iter().filter_map(|r| map[r.index()]).collect();
    let mut out = b.finish()?;
    out.results = results;
    Ok((out, calls))
}

/// The target's groups, and one more for each source that something other than a kernel reads.
fn complete(function: &Function, mut groups: Vec<Vec<NodeId>>) -> Vec<Vec<NodeId>> {
    let mut grouped = vec![false; function.nodes.len()];
    for id in groups.iter().flatten() {
        grouped[id.index()] = true;
    }
    let (users, returned) = (function.users(), function.returned());
    for (id, node) in function.nodes.iter() {
        let Inst::Op(op) = &node.inst else { continue };
        let outside = returned[id.index()] || users[id.index()].iter().any(|u| !grouped[u.index()]);
        if op.class() == Class::Source && outside && !grouped[id.index()] {
            groups.push(vec![id]);
        }
    }
    groups
}

enum Unit {
    Node(NodeId),
    Group(usize),
}

/// An order of groups and loose nodes in which operands come first. Of the units that are ready, the one whose first
/// node came first in the function goes first.
fn order(function: &Function, groups: &[Vec<NodeId>], group_of: &[Option<usize>]) -> Result<Vec<Unit>, Mismatch> {
    // Units are numbered: groups first, then loose nodes.
    let mut unit_of: Vec<usize> = vec![usize::MAX; function.nodes.len()];
    let mut units: Vec<Unit> = (0..groups.len()).map(Unit::Group).collect();
    let mut first: Vec<usize> = groups.iter().map(|g| g.iter().map(|i| i.index()).min().unwrap_or(0)).collect();
    for (id, node) in function.nodes.iter() {
        unit_of[id.index()] = match group_of[id.index()] {
            Some(g) => g,
            None => {
                let source = matches!(&node.inst, Inst::Op(op) if op.class() == Class::Source);
                if source || matches!(node.inst, Inst::Param(_)) {
                    continue;
                }
                units.push(Unit::Node(id));
                first.push(id.index());
                units.len() - 1
            }
        };
    }
    let mut needs = vec![0usize; units.len()];
    let mut feeds: Vec<Vec<usize>> = vec![vec![]; units.len()];
    for (id, node) in function.nodes.iter() {
        let to = unit_of[id.index()];
        for arg in &node.args {
            let from = unit_of[arg.index()];
            if to != usize::MAX && from != usize::MAX && from != to {
                feeds[from].push(to);
                needs[to] += 1;
            }
        }
    }
    let mut ready: std::collections::BTreeSet<(usize, usize)> =
        (0..units.len()).filter(|&u| needs[u] == 0).map(|u| (first[u], u)).collect();
    let mut out = vec![];
    while let Some((_, u)) = ready.pop_first() {
        out.push(u);
        for &next in &feeds[u] {
            needs[next] -= 1;
            if needs[next] == 0 {
                ready.insert((first[next], next));
            }
        }
    }
    if out.len() < units.len() {
        return Err(Mismatch::new("the target's groups depend on each other in a circle"));
    }
    let mut units: Vec<Option<Unit>> = units.into_iter().map(Some).collect();
    Ok(out.into_iter().filter_map(|u| units[u].take()).collect())
}

/// One group as a function of its own.
struct Kernel {
    function: Function,
    /// Nodes of the old function that are its parameters and results.
    operands: Vec<NodeId>,
    results: Vec<NodeId>,
}

impl Kernel {
    fn cut(
        from: &Function,
        members: &[NodeId],
        (users, returned): (&[SmallVec<[NodeId; 4]>], &[bool]),
        (group_of, own): (&[Option<usize>], usize),
        g: usize,
    ) -> Self {
        let mut members = members.to_vec();
        members.sort_unstable();
        let inside = |id: NodeId| group_of[id.index()] == Some(g);
        // A source is in each kernel that reads it, unless it is in one of the target's own groups.
        let is_source = |id: NodeId| {
            let is_grouped = group_of[id.index()].is_some_and(|group| group < own);
            matches!(&from.nodes[id].inst, Inst::Op(op) if op.class() == Class::Source && !is_grouped)
        };
        let (mut operands, mut known): (Vec<NodeId>, HashSet<NodeId>) = (vec![], HashSet::new());
        for arg in members.iter().flat_map(|&m| &from.nodes[m].args) {
            if !inside(*arg) && !is_source(*arg) && known.insert(*arg) {
                operands.push(*arg);
            }
        }
        let mut b = Builder::new(name(from, &members));
        b.function.kind = FunctionKind::Kernel;
        let mut map: HashMap<NodeId, NodeId> = HashMap::new();
        for &o in &operands {
            map.insert(o, b.param(from.ty(o).clone()));
        }
        for &m in &members {
            let node = &from.nodes[m];
            for arg in &node.args {
                if is_source(*arg) && !map.contains_key(arg) {
                    let Node { inst, ty, .. } = from.nodes[*arg].clone();
                    map.insert(*arg, b.push(inst, [], ty));
                }
            }
            b.place = node.place;
            let args: Vec<NodeId> = node.args.iter().filter_map(|a| map.get(a).copied()).collect();
            map.insert(m, b.push(node.inst.clone(), args, node.ty.clone()));
        }
        let leaves = |id: &NodeId| {
            let read = users[id.index()].iter().any(|u| !inside(*u));
            (read || returned[id.index()]) && from.ty(*id).tensor().is_some()
        };
        let mut results: Vec<NodeId> = members.iter().copied().filter(leaves).collect();
        // An operator with several results that leaves its kernel whole is read outside through `get`: those items leave.
        let whole: Vec<NodeId> = members
            .iter()
            .copied()
            .filter(|m| from.ty(*m).tensor().is_none() && users[m.index()].iter().any(|u| !inside(*u)))
            .collect();
        let mut function = b.function;
        function.results = results.iter().filter_map(|r| map.get(r).copied()).collect();
        for m in whole {
            for &u in users[m.index()].iter().filter(|u| !inside(**u)) {
                let Inst::Get(i) = from.nodes[u].inst else { continue };
                let node = Node {
                    inst: Inst::Get(i),
                    args: [map[&m]].into_iter().collect(),
                    ty: from.ty(u).clone(),
                    shardings: SmallVec::new(),
                    place: from.nodes[u].place,
                };
                function.results.push(function.nodes.add(node));
                results.push(u);
            }
        }
        Self { function, operands, results }
    }

    fn call_type(&self, from: &Function) -> ir::Type {
        match self.results.as_slice() {
            [one] => from.ty(*one).clone(),
            several => ir::Type::Tuple(several.iter().map(|&r| from.ty(r).clone()).collect()),
        }
    }
}

/// `matmul_add_gelu_tanh`: the operators in order, shortened.
fn name(from: &Function, members: &[NodeId]) -> String {
    let mut out = String::new();
    let ops = members.iter().filter_map(|&m| match &from.nodes[m].inst {
        Inst::Op(op) if op.class() != Class::View => Some(op.name()),
        _ => None,
    });
    for (i, op) in ops.enumerate() {
        if i == 4 {
            out.push_str("_etc");
            break;
        }
        if i > 0 {
            out.push('_');
        }
        out.push_str(op);
    }
    out
}

impl Kernels {
    fn intern(&mut self, kernel: &Function) -> usize {
        let identity = Identity::of(kernel);
        if let Some(&known) = self.known.get(&identity) {
            return known;
        }
        let index = self.functions.len();
        let mut kernel = kernel.clone();
        kernel.name = format!("k{index}_{}", kernel.name).into();
        self.functions.push(kernel);
        self.known.insert(identity, index);
        index
    }
}
