//! What all that a function's results need costs together: a class counts once, however many stand on it.

use std::collections::HashMap;

use egg::Id;
use ir::{Class, Op};

use super::super::cost;
use super::super::facts::Graph;
use super::super::term::Term;

pub type Chosen<'a> = HashMap<Id, &'a Term>;

/// The classes of a graph by number, each with the terms it may be computed by.
pub struct Whole<'a> {
    graph: &'a Graph,
    ids: Vec<Id>,
    terms: Vec<Vec<Choice<'a>>>,
    roots: Vec<usize>,
}

struct Choice<'a> {
    term: &'a Term,
    cost: u64,
    children: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Seen {
    No,
    Below,
    Done,
}

impl<'a> Whole<'a> {
    pub fn new(graph: &'a Graph, roots: &[Id]) -> Self {
        let mut ids: Vec<Id> = graph.classes().map(|c| c.id).collect();
        ids.sort_unstable();
        let index: HashMap<Id, usize> = ids.iter().enumerate().map(|(i, &id)| (id, i)).collect();
        let at = |id: &Id| index[&graph.find(*id)];
        let choices = |id: &Id| {
            let choice = |term: &'a Term| Choice {
                term,
                cost: cost::of(graph, term, &graph[*id].data.ty),
                children: term.children.iter().map(at).collect(),
            };
            graph[*id].nodes.iter().map(choice).collect()
        };
        let terms = ids.iter().map(choices).collect();
        let roots = roots.iter().map(at).collect();
        Self { graph, ids, terms, roots }
    }

    /// `None` if the choice runs in a circle, or is none.
    pub fn cost(&self, chosen: &Chosen<'a>) -> Option<u64> {
        self.walk(&self.numbered(chosen)).map(|(cost, _)| cost)
    }

    /// Changes one choice after another where that makes the whole cheaper, though it may not be cheaper by itself.
    /// Only collectives are dear enough to look for this.
    pub fn improve(&self, chosen: &mut Chosen<'a>) {
        let is_collective = |op: &Op| op.class() == Class::Collective;
        if !self.terms.iter().flatten().any(|c| c.term.as_op().is_some_and(is_collective)) {
            return;
        }
        let mut choice = self.numbered(chosen);
        let Some((mut least, mut seen)) = self.walk(&choice) else { return };
        // From the results down, so that what is not needed any more is not looked at.
        for i in (0..self.ids.len()).rev() {
            for t in 0..self.terms[i].len() {
                if seen[i] != Seen::Done || choice[i] == Some(t) {
                    continue;
                }
                let before = choice[i].replace(t);
                match self.walk(&choice) {
                    Some((cost, now)) if cost < least => (least, seen) = (cost, now),
                    _ => choice[i] = before,
                }
            }
        }
        for (i, id) in self.ids.iter().enumerate() {
            chosen.extend(choice[i].map(|t| (*id, self.terms[i][t].term)));
        }
    }

    fn numbered(&self, chosen: &Chosen<'a>) -> Vec<Option<usize>> {
        let number = |id: &Id| {
            let mut term = Term::clone(chosen.get(id)?);
            // Classes may have been merged since.
            term.children.iter_mut().for_each(|c| *c = self.graph.find(*c));
            self.graph[*id].nodes.iter().position(|t| *t == term)
        };
        self.ids.iter().map(number).collect()
    }

    /// The cost, and which classes it is made of.
    fn walk(&self, choice: &[Option<usize>]) -> Option<(u64, Vec<Seen>)> {
        let mut seen = vec![Seen::No; self.ids.len()];
        let mut stack = self.roots.clone();
        let mut sum = 0u64;
        while let Some(&i) = stack.last() {
            let choice = &self.terms[i][choice[i]?];
            match seen[i] {
                Seen::No => {
                    seen[i] = Seen::Below;
                    for &child in &choice.children {
                        match seen[child] {
                            Seen::No => stack.push(child),
                            Seen::Below => return None,
                            Seen::Done => {}
                        }
                    }
                }
                Seen::Below => {
                    seen[i] = Seen::Done;
                    sum = sum.saturating_add(choice.cost);
                    stack.pop();
                }
                Seen::Done => {
                    stack.pop();
                }
            }
        }
        Some((sum, seen))
    }
}
