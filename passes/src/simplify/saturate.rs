//! A function as an e-graph, and the rounds in which rules add to it.

use std::collections::BTreeMap;

use diag::PlaceId;
use egg::Id;
use indexmap::IndexMap;
use ir::{Class, Function, Inst, NodeId};

use super::facts::{Facts, Graph};
use super::rules::{Of, Rule};
use super::site::Site;
use super::term::Term;

pub struct Saturation {
    pub graph: Graph,
    /// The class of each live node of the function.
    classes: Vec<Option<Id>>,
    /// ... and what the function itself computes it by.
    terms: Vec<Option<Term>>,
}

/// Rules see through each other in a few rounds; what needs more is not worth the time.
const MAX_ROUNDS: usize = 8;

impl Saturation {
    pub fn of(function: &Function) -> Self {
        let mut graph = Graph::new(Facts { place: PlaceId::NONE });
        let mut live = function.live();
        function.params.iter().for_each(|p| live[p.index()] = true);
        let mut classes: Vec<Option<Id>> = vec![None; function.nodes.len()];
        let mut terms = vec![None; function.nodes.len()];
        for (id, node) in function.nodes.iter().filter(|(id, _)| live[id.index()]) {
            graph.analysis.place = node.place;
            let children = node.args.iter().filter_map(|a| classes[a.index()]);
            let term = Term::new(node.inst.clone(), &node.ty, children);
            terms[id.index()] = Some(term.clone());
            classes[id.index()] = Some(graph.add(term));
        }
        graph.rebuild();
        Self { graph, classes, terms }
    }

    pub fn class(&self, node: NodeId) -> Option<Id> {
        self.classes[node.index()].map(|id| self.graph.find(id))
    }

    pub fn term(&self, node: NodeId) -> Option<&Term> {
        self.terms[node.index()].as_ref()
    }

    /// Applies `rules` until nothing is new. Returns how often each found something.
    pub fn run<'r>(&mut self, rules: impl Iterator<Item = &'r Rule> + Clone) -> IndexMap<&'r str, u64> {
        let limit = 4 * self.graph.total_size() + 1000;
        let mut fired = IndexMap::new();
        for _ in 0..MAX_ROUNDS {
            let mut changed = false;
            let sites = self.sites();
            for rule in rules.clone() {
                for (class, term) in sites.get(key(rule.of)).into_iter().flatten() {
                    if self.apply(rule, *class, term) {
                        *fired.entry(rule.name).or_insert(0) += 1;
                        changed = true;
                    }
                    if self.graph.total_size() > 2 * limit {
                        self.graph.rebuild();
                        return fired;
                    }
                }
            }
            self.graph.rebuild();
            if !changed || self.graph.total_size() > limit {
                break;
            }
        }
        fired
    }

    /// Every operator of every class, by its name and, if elementwise, under that heading too. In order of classes, so
    /// that the outcome never depends on hashing.
    fn sites(&self) -> BTreeMap<&'static str, Vec<(Id, Term)>> {
        let mut ids: Vec<Id> = self.graph.classes().map(|c| c.id).collect();
        ids.sort_unstable();
        let mut sites: BTreeMap<&'static str, Vec<(Id, Term)>> = BTreeMap::new();
        for id in ids {
            for term in &self.graph[id].nodes {
                if let Inst::Op(op) = &term.kind.inst {
                    sites.entry(op.name()).or_default().push((id, term.clone()));
                    if op.class() == Class::Elementwise {
                        sites.entry(ELEMENTWISE).or_default().push((id, term.clone()));
                    }
                }
            }
        }
        sites
    }

    fn apply(&mut self, rule: &Rule, class: Id, term: &Term) -> bool {
        let fact = &self.graph[class].data;
        let (Some(op), Some(ty)) = (term.as_op(), fact.ty.tensor().cloned()) else { return false };
        self.graph.analysis.place = fact.place;
        let mut site = Site { graph: &mut self.graph, term, op, ty: &ty };
        let mut changed = false;
        for new in (rule.apply)(&mut site) {
            // Equal values have equal types; a rule that thinks otherwise is not believed.
            if site.fits(new) {
                changed |= site.graph.union(class, new);
            }
        }
        changed
    }
}

const ELEMENTWISE: &str = "any elementwise";

fn key(of: Of) -> &'static str {
    match of {
        Of::Op(name) => name,
        Of::Elementwise => ELEMENTWISE,
    }
}
