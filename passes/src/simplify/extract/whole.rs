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
        let choice = self.numbered(chosen);
        let cost = |i: usize| choice[i].map_or(0, |t| self.terms[i][t].cost);
        Some(self.walk(&choice)?.into_iter().map(cost).fold(0, u64::saturating_add))
    }

    /// Changes one choice after another where that makes the whole cheaper, though it may not be cheaper by itself.
    /// Only collectives are dear enough to look for this.
    pub fn improve(&self, chosen: &mut Chosen<'a>) {
        let is_collective = |op: &Op| op.class() == Class::Collective;
        if !self.terms.iter().flatten().any(|c| c.term.as_op().is_some_and(is_collective)) {
            return;
        }
        let Some(mut uses) = Uses::of(self, self.numbered(chosen)) else { return };
        // From the results down, so that what is not needed any more is not looked at.
        for i in (0..self.ids.len()).rev() {
            for t in 0..self.terms[i].len() {
                if uses.counts[i] > 0 && uses.choice[i] != Some(t) {
                    uses.change(i, t);
                }
            }
        }
        let choice = uses.choice;
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

    /// The classes that a choice makes the results of, operands first; none if it runs in a circle, or is none.
    fn walk(&self, choice: &[Option<usize>]) -> Option<Vec<usize>> {
        let mut seen = vec![Seen::No; self.ids.len()];
        let mut stack = self.roots.clone();
        let mut order = vec![];
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
                    order.push(i);
                    stack.pop();
                }
                Seen::Done => {
                    stack.pop();
                }
            }
        }
        Some(order)
    }
}

/// A choice, and how often each class is used by it: one change of it is tried in the time that it takes to follow what
/// it changes, however large the whole is.
struct Uses<'w, 'a> {
    whole: &'w Whole<'a>,
    choice: Vec<Option<usize>>,
    /// By class: how many operands of used classes it is, and whether it is a result.
    counts: Vec<usize>,
    /// By class that is used: its place in an order in which operands come first.
    places: Vec<usize>,
    cost: u128,
    /// Counts that the change under way has taken up by one, or down.
    changed: Vec<(usize, bool)>,
}

impl<'w, 'a> Uses<'w, 'a> {
    fn of(whole: &'w Whole<'a>, choice: Vec<Option<usize>>) -> Option<Self> {
        let count = whole.ids.len();
        let mut uses = Self { whole, choice, counts: vec![0; count], places: vec![0; count], cost: 0, changed: vec![] };
        for i in uses.number()? {
            let term = uses.term(i)?;
            uses.cost += u128::from(term.cost);
            term.children.iter().for_each(|child| uses.counts[*child] += 1);
        }
        whole.roots.iter().for_each(|root| uses.counts[*root] += 1);
        Some(uses)
    }

    /// Takes the order anew.
    fn number(&mut self) -> Option<Vec<usize>> {
        let order = self.whole.walk(&self.choice)?;
        order.iter().enumerate().for_each(|(place, i)| self.places[*i] = place);
        Some(order)
    }

    fn term(&self, i: usize) -> Option<&'w Choice<'a>> {
        Some(&self.whole.terms[i][self.choice[i]?])
    }

    /// Computes a class by another of its terms, if all is cheaper then.
    fn change(&mut self, i: usize, t: usize) {
        let new = &self.whole.terms[i][t];
        let Some(old) = self.term(i).filter(|_| !self.circles(i, &new.children)) else { return };
        let before = self.cost;
        self.cost += u128::from(new.cost);
        let found = new.children.iter().try_for_each(|child| self.take(*child));
        self.cost -= u128::from(old.cost);
        if found.is_some() {
            old.children.iter().for_each(|child| self.leave(*child));
        }
        let changed = std::mem::take(&mut self.changed);
        if found.is_some() && self.cost < before {
            self.choice[i] = Some(t);
            self.number();
            return;
        }
        self.cost = before;
        for (class, up) in changed {
            self.counts[class] = if up { self.counts[class] - 1 } else { self.counts[class] + 1 };
        }
    }

    /// One use more, and of all that it needs if it is the first; none if something has no term.
    fn take(&mut self, class: usize) -> Option<()> {
        let mut left = vec![class];
        while let Some(class) = left.pop() {
            self.counts[class] += 1;
            self.changed.push((class, true));
            if self.counts[class] == 1 {
                let term = self.term(class)?;
                self.cost += u128::from(term.cost);
                left.extend(&term.children);
            }
        }
        Some(())
    }

    /// One use less, and of all that it needs if it was the last.
    fn leave(&mut self, class: usize) {
        let mut left = vec![class];
        while let Some(class) = left.pop() {
            self.counts[class] -= 1;
            self.changed.push((class, false));
            if let Some(term) = self.term(class).filter(|_| self.counts[class] == 0) {
                self.cost -= u128::from(term.cost);
                left.extend(&term.children);
            }
        }
    }

    /// Whether class `i` over these operands would follow from itself, or from what does. Used classes that come before
    /// `i` stand on such alone, so they are not looked into.
    fn circles(&self, i: usize, operands: &[usize]) -> bool {
        let mut seen: HashMap<usize, Seen> = HashMap::new();
        let mut stack = operands.to_vec();
        while let Some(&class) = stack.last() {
            if class == i {
                return true;
            }
            let settled = self.counts[class] > 0 && self.places[class] < self.places[i];
            match seen.get(&class) {
                None if settled => {
                    stack.pop();
                }
                None => {
                    seen.insert(class, Seen::Below);
                    let Some(term) = self.term(class) else { return true };
                    for child in &term.children {
                        match seen.get(child) {
                            None => stack.push(*child),
                            Some(Seen::Below) => return true,
                            _ => {}
                        }
                    }
                }
                Some(Seen::Below) => {
                    seen.insert(class, Seen::Done);
                    stack.pop();
                }
                _ => {
                    stack.pop();
                }
            }
        }
        false
    }
}
