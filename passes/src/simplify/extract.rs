//! The choice of one operator for each class, so that all that the results need costs least.
//!
//! Costs count shared values once: each class keeps the set of classes that it stands on, after "greedy DAG" of the
//! extraction gym. The choice that the function came with is the other candidate, so nothing ever gets worse.

use std::collections::HashMap;

use egg::Id;
use ir::{Builder, Function, Mismatch, NodeId};

use super::cost;
use super::facts::Graph;
use super::saturate::Saturation;
use super::term::Term;

pub struct Extraction<'a> {
    chosen: HashMap<Id, &'a Term>,
}

impl<'a> Extraction<'a> {
    pub fn of(saturation: &'a Saturation, function: &Function) -> Self {
        let roots: Vec<Id> = function.results.iter().filter_map(|&r| saturation.class(r)).collect();
        let before = Self { chosen: first(saturation, function) };
        let after = Self { chosen: Greedy::new(&saturation.graph).choose() };
        let graph = &saturation.graph;
        match (after.cost(graph, &roots), before.cost(graph, &roots)) {
            (Some(after_cost), Some(before_cost)) if after_cost <= before_cost => after,
            (Some(_), None) => after,
            _ => before,
        }
    }

    /// Cost of all that `roots` need; `None` if the choice runs in a circle.
    fn cost(&self, graph: &Graph, roots: &[Id]) -> Option<u64> {
        let mut seen: HashMap<Id, bool> = HashMap::new();
        let mut stack: Vec<(Id, bool)> = roots.iter().map(|&r| (graph.find(r), false)).collect();
        let mut sum = 0u64;
        while let Some((id, leave)) = stack.pop() {
            let term = self.chosen.get(&id)?;
            if leave {
                seen.insert(id, true);
                sum = sum.saturating_add(cost::of(graph, term, &graph[id].data.ty));
                continue;
            }
            match seen.get(&id) {
                Some(true) => continue,
                Some(false) => return None,
                None => {}
            }
            seen.insert(id, false);
            stack.push((id, true));
            for &child in &term.children {
                let child = graph.find(child);
                match seen.get(&child) {
                    Some(true) => {}
                    Some(false) => return None,
                    None => stack.push((child, false)),
                }
            }
        }
        Some(sum)
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
fn first<'a>(saturation: &'a Saturation, function: &Function) -> HashMap<Id, &'a Term> {
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

struct Greedy<'a> {
    graph: &'a Graph,
    ids: Vec<Id>,
    index: HashMap<Id, usize>,
    best: Vec<Option<Best<'a>>>,
}

struct Best<'a> {
    cost: u64,
    term: &'a Term,
    /// Of the term alone.
    own: u64,
    /// Classes that the choice stands on, its own included, as bits.
    below: Vec<u64>,
}

impl<'a> Greedy<'a> {
    fn new(graph: &'a Graph) -> Self {
        let mut ids: Vec<Id> = graph.classes().map(|c| c.id).collect();
        ids.sort_unstable();
        let index = ids.iter().enumerate().map(|(i, &id)| (id, i)).collect();
        let best = ids.iter().map(|_| None).collect();
        Self { graph, ids, index, best }
    }

    fn choose(mut self) -> HashMap<Id, &'a Term> {
        // Values depend on earlier ones mostly, so the first round finds nearly all; later ones only follow changes.
        let mut stale = vec![true; self.ids.len()];
        for _ in 0..12 {
            let mut changed = vec![false; self.ids.len()];
            for i in 0..self.ids.len() {
                let class = &self.graph[self.ids[i]];
                let moved = |t: &Term| {
                    t.children.iter().any(|c| {
                        let child = self.index[&self.graph.find(*c)];
                        stale[child] || changed[child]
                    })
                };
                let mut better = None;
                for term in class.nodes.iter().filter(|t| t.children.is_empty() && stale[i] || moved(t)) {
                    if let Some(candidate) = self.candidate(i, term) {
                        let beats = |best: &Option<Best<'_>>| best.as_ref().is_none_or(|b| candidate.cost < b.cost);
                        if beats(&better) && beats(&self.best[i]) {
                            better = Some(candidate);
                        }
                    }
                }
                if better.is_some() {
                    self.best[i] = better;
                    changed[i] = true;
                }
            }
            if !changed.contains(&true) {
                break;
            }
            stale = changed;
        }
        let chosen = self.ids.iter().zip(self.best);
        chosen.filter_map(|(&id, best)| Some((id, best?.term))).collect()
    }

    fn candidate(&self, i: usize, term: &'a Term) -> Option<Best<'a>> {
        let mut below = vec![0u64; self.ids.len().div_ceil(64)];
        for child in &term.children {
            let best = self.best[self.index[&self.graph.find(*child)]].as_ref()?;
            below.iter_mut().zip(&best.below).for_each(|(a, b)| *a |= b);
        }
        if below[i / 64] >> (i % 64) & 1 == 1 {
            return None;
        }
        let own = cost::of(self.graph, term, &self.graph[self.ids[i]].data.ty);
        let mut cost = own;
        for (word, bits) in below.iter().enumerate() {
            let mut bits = *bits;
            while bits != 0 {
                let class = word * 64 + bits.trailing_zeros() as usize;
                cost = cost.saturating_add(self.best[class].as_ref()?.own);
                bits &= bits - 1;
            }
        }
        below[i / 64] |= 1 << (i % 64);
        Some(Best { cost, term, own, below })
    }
}
