//! The cheapest operator of each class by itself, from the operands up.

use std::collections::HashMap;

use egg::Id;

use super::super::cost;
use super::super::facts::Graph;
use super::super::term::Term;
use super::below::Below;
use super::whole::Chosen;

pub struct Greedy<'a> {
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
    /// Classes that the choice stands on, its own included.
    below: Below,
}

impl<'a> Greedy<'a> {
    pub fn new(graph: &'a Graph) -> Self {
        let mut ids: Vec<Id> = graph.classes().map(|c| c.id).collect();
        ids.sort_unstable();
        let index = ids.iter().enumerate().map(|(i, &id)| (id, i)).collect();
        let best = ids.iter().map(|_| None).collect();
        Self { graph, ids, index, best }
    }

    pub fn choose(mut self) -> Chosen<'a> {
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
        let (numbers, mut below) = (self.ids.len(), Below::default());
        let own = cost::of(self.graph, term, &self.graph[self.ids[i]].data.ty);
        let costs = |number: usize| match &self.best[number] {
            _ if number == i => own,
            Some(best) => best.own,
            None => 0,
        };
        for child in &term.children {
            let best = self.best[self.index[&self.graph.find(*child)]].as_ref()?;
            below = below.union(&best.below, &costs);
        }
        if below.contains(i, numbers) {
            return None;
        }
        below = below.with(i, numbers, &costs);
        Some(Best { cost: below.cost(), term, own, below })
    }
}
