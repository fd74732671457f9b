//! Propagation: axes go from tensor to tensor along the factors of operators, and across calls, until nothing changes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use diag::Diagnostics;
use ir::{Function, Id, Input, Inst, Module, NodeId, Output, ShardingHint};
use types::Name;

use super::assign::{Around, joined};
use super::assignment::{AxisAssignment, Site, names};
use super::seed;
use super::stale::{Stale, Way};

/// The hints of the model's plan and all that follows from them.
pub fn model(module: &Module) -> Result<AxisAssignment, Diagnostics> {
    let mut table = AxisAssignment::new(module);
    given(module, &mut table);
    seed::model(module, &mut table)?;
    spread(module, &mut table);
    Ok(table)
}

pub fn fill(module: &Module, table: &mut AxisAssignment) {
    seed::fill(module, table);
    spread(module, table);
}

pub fn store(module: &Module, table: &mut AxisAssignment) {
    seed::store(module, table);
    spread(module, table);
}

/// Shardings that stand in the module already.
fn given(module: &Module, table: &mut AxisAssignment) {
    for (id, function) in module.functions.iter() {
        for (node, n) in function.nodes.iter() {
            for (i, sharding) in n.shardings.iter().enumerate() {
                for (d, dim) in sharding.dims.iter().enumerate() {
                    let axes: Vec<_> = dim.axes.iter().map(|a| (a.clone(), super::assignment::Rank::Model)).collect();
                    table.extend((id, node, i), d, &axes);
                }
            }
        }
    }
}

/// Axes that are exchanged rather than sent around a ring.
pub fn exchanged(module: &Module) -> Vec<Name> {
    let axes = module.hints.iter().filter_map(|(w, _)| match w {
        ShardingHint::Exchange { axes } => Some(axes.clone()),
        _ => None,
    });
    axes.flatten().filter(|a| module.mesh.size(a) > 1).collect()
}

/// To the fixed point: there and back through all nodes, again and again. Axes are only ever added, so there is one.
fn spread(module: &Module, table: &mut AxisAssignment) {
    let (exchange, homes) = (exchanged(module), homes(module));
    let mut stale = Stale::all(module, table);
    loop {
        let mut changed = false;
        for &(home, site) in &homes {
            changed |= link(table, home, site);
        }
        stale.note(table);
        if !changed && stale.is_empty() {
            return;
        }
        for way in [Way::There, Way::Back] {
            let mut next = stale.function(None, way);
            while let Some(f) = next {
                let (id, mut node) = (Id::new(f), stale.node(f, None, way));
                while let Some(at) = node {
                    stale.done(f, at);
                    step(module, table, &exchange, id, &module.functions[id], at);
                    stale.note(table);
                    node = stale.node(f, Some(at), way);
                }
                next = stale.function(Some(f), way);
            }
        }
    }
}

/// A parameter or state is held alike by all programs, and alike before and after a step: its first place, and each other.
fn homes(module: &Module) -> Vec<(Site, Site)> {
    let mut homes: HashMap<(&Name, bool), Site> = HashMap::new();
    let mut pairs = vec![];
    for program in &module.programs {
        let function = &module.functions[program.function];
        let inputs = program.inputs.iter().zip(&function.params).filter_map(|(input, &p)| match input {
            Input::Parameter(n) => Some((n, true, (program.function, p, 0))),
            Input::State(n) => Some((n, false, (program.function, p, 0))),
            Input::Feed(_) => None,
        });
        let outputs = program.outputs.iter().zip(&function.results).filter_map(|(output, &r)| match output {
            Output::Parameter(n) => Some((n, true, (program.function, r, 0))),
            Output::State(n) => Some((n, false, (program.function, r, 0))),
            _ => None,
        });
        for (name, parameter, site) in inputs.chain(outputs) {
            match homes.entry((name, parameter)) {
                Entry::Occupied(home) => pairs.push((*home.get(), site)),
                Entry::Vacant(place) => {
                    place.insert(site);
                }
            }
        }
    }
    pairs
}

fn link(table: &mut AxisAssignment, a: Site, b: Site) -> bool {
    let mut changed = false;
    for d in 0..table.at(a).len().min(table.at(b).len()) {
        let (of_a, of_b) = (table.at(a)[d].clone(), table.at(b)[d].clone());
        changed |= table.extend(b, d, &of_a);
        changed |= table.extend(a, d, &of_b);
    }
    changed
}

/// One node with its operands.
fn step(
    module: &Module,
    table: &mut AxisAssignment,
    exchange: &[Name],
    f: Id<Function>,
    function: &Function,
    id: NodeId,
) -> bool {
    let node = &function.nodes[id];
    match &node.inst {
        Inst::Param(_) => false,
        Inst::Get(i) => link(table, (f, node.args[0], *i), (f, id, 0)),
        Inst::Repeat { .. } => link(table, (f, node.args[0], 0), (f, id, 0)),
        Inst::Chunk { .. } | Inst::Unchunk => {
            let (a, b) = ((f, node.args[0], 0), (f, id, 0));
            let mut changed = false;
            for d in 1..table.at(a).len().min(table.at(b).len()) {
                let (of_a, of_b) = (table.at(a)[d].clone(), table.at(b)[d].clone());
                changed |= table.extend(b, d, &of_a);
                changed |= table.extend(a, d, &of_b);
            }
            changed
        }
        Inst::Call(call) => {
            let callee = &module.functions[call.callee];
            let mut changed = false;
            for (&arg, &param) in node.args.iter().zip(&callee.params) {
                changed |= link(table, (f, arg, 0), (call.callee, param, 0));
            }
            for (i, &result) in callee.results.iter().enumerate() {
                changed |= link(table, (call.callee, result, 0), (f, id, i));
                if call.times.is_some() && i < call.carried {
                    changed |= link(table, (call.callee, callee.params[i], 0), (call.callee, result, 0));
                }
            }
            changed
        }
        Inst::Op(op) => {
            let Some(factors) = table.factors[f.index()][id.index()].clone() else { return false };
            let around = Around {
                op,
                factors: &factors,
                args: node.args.iter().map(|&a| table.at((f, a, 0))).collect(),
                results: table.functions[f.index()][id.index()].iter().collect(),
                exchange,
            };
            // Where axes are exchanged, that is this operator's own affair.
            let whole = Around { exchange: &[], ..around };
            let cuts = whole.cuts(&table.mesh);
            if cuts.iter().all(|c| c.is_empty()) {
                return false;
            }
            let mut wanted = vec![];
            for (t, dims) in factors.args.iter().enumerate() {
                wanted.extend(dims.iter().enumerate().map(|(d, of)| ((f, node.args[t], 0), d, of)));
            }
            for (t, dims) in factors.results.iter().enumerate() {
                wanted.extend(dims.iter().enumerate().map(|(d, of)| ((f, id, t), d, of)));
            }
            let mut changed = false;
            for (site, d, of) in wanted {
                let axes = joined(&table.mesh, &factors, of, &cuts);
                changed |= names(&axes).len() > table.at(site)[d].len() && table.extend(site, d, &axes);
            }
            changed
        }
    }
}
