//! The choice of one operator for each class, so that all that the results need costs least.
//!
//! Costs count shared values once: each class keeps the set of classes that it stands on, after "greedy DAG" of the
//! extraction gym. The choice that the function came with is the other candidate, so nothing ever gets worse.

mod below;
mod greedy;
mod whole;

use std::collections::HashMap;

use egg::Id;
use ir::{Builder, Function, Mismatch, NodeId};

use self::greedy::Greedy;
use self::whole::{Chosen, Whole};
use super::facts::Graph;
use super::saturate::Saturation;

pub struct Extraction<'a> {
    chosen: Chosen<'a>,
}

impl<'a> Extraction<'a> {
    pub fn of(saturation: &'a Saturation, function: &Function) -> Self {
        let roots: Vec<Id> = function.results.iter().filter_map(|&r| saturation.class(r)).collect();
        let whole = Whole::new(&saturation.graph, &roots);
        let before = first(saturation, function);
        let mut after = Greedy::new(&saturation.graph).choose();
        whole.improve(&mut after);
        let chosen = match (whole.cost(&after), whole.cost(&before)) {
            (Some(after_cost), Some(before_cost)) if after_cost <= before_cost => after,
            (Some(_), None) => after,
            _ => before,
        };
        Self { chosen }
    }

    /// The function again, from the chosen operators, in the order in which the old one computed their values.
    pub fn function(&self, saturation: &Saturation, old: &Function) -> Result<Function, Mismatch> {
        let mut b = Builder::new(old.name.clone());
        (b.function.kind, b.function.recompute) = (old.kind, old.recompute);
        let mut out = Emission { extraction: self, graph: &saturation.graph, b, map: HashMap::new() };
        for &p in &old.params {
            out.b.place = old.nodes[p].place;
            let new = out.b.param(old.ty(p).clone());
            if let Some(class) = saturation.class(p) {
                out.map.insert(class, new);
            }
        }
        let needed = self.needed(saturation, old);
        for id in old.nodes.ids() {
            if let Some(class) = saturation.class(id).filter(|c| needed.contains_key(c)) {
                out.emit(class)?;
            }
        }
        let mut results = vec![];
        for &r in &old.results {
            let class = saturation.class(r).ok_or_else(|| Mismatch::new("a result is not live"))?;
            results.push(out.emit(class)?);
        }
        let mut function = out.b.finish()?;
        function.results = results;
        Ok(function)
    }

    fn needed(&self, saturation: &Saturation, old: &Function) -> HashMap<Id, ()> {
        let mut needed = HashMap::new();
        let mut stack: Vec<Id> = old.results.iter().filter_map(|&r| saturation.class(r)).collect();
        while let Some(id) = stack.pop() {
            if needed.insert(id, ()).is_none()
                && let Some(term) = self.chosen.get(&id)
            {
                stack.extend(term.children.iter().map(|&c| saturation.graph.find(c)));
            }
        }
        needed
    }
}

/// The first operator that the function itself computes each class with.
fn first<'a>(saturation: &'a Saturation, function: &Function) -> Chosen<'a> {
    let mut chosen = HashMap::new();
    for id in function.nodes.ids() {
        if let (Some(term), Some(class)) = (saturation.term(id), saturation.class(id)) {
            chosen.entry(class).or_insert(term);
        }
    }
    chosen
}

struct Emission<'a> {
    extraction: &'a Extraction<'a>,
    graph: &'a Graph,
    b: Builder,
    map: HashMap<Id, NodeId>,
}

impl Emission<'_> {
    fn emit(&mut self, class: Id) -> Result<NodeId, Mismatch> {
        let mut stack = vec![class];
        while let Some(&id) = stack.last() {
            if self.map.contains_key(&id) {
                stack.pop();
                continue;
            }
            let Some(&term) = self.extraction.chosen.get(&id) else {
                return Err(Mismatch::new("a value has no operator to compute it"));
            };
            let children: Vec<Id> = term.children.iter().map(|&c| self.graph.find(c)).collect();
            let before = stack.len();
            stack.extend(children.iter().rev().filter(|c| !self.map.contains_key(c)));
            if stack.len() > before {
                continue;
            }
            let args: Vec<NodeId> = children.iter().map(|c| self.map[c]).collect();
            let fact = &self.graph[id].data;
            self.b.place = fact.place;
            let node = self.b.push(term.kind.inst.clone(), args, fact.ty.clone());
            self.map.insert(id, node);
            stack.pop();
        }
        Ok(self.map[&class])
    }
}
