//! Which nodes have to be looked at again, because something that they touch has changed: a sweep through all of them finds
//! what it would find if it looked at each, in the same order.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Unbounded};

use ir::{Function, Inst, Module, NodeId};
use smallvec::SmallVec;

use super::assignment::{AxisAssignment, Site};

/// The direction of a sweep, through functions and through the nodes of each.
#[derive(Clone, Copy)]
pub enum Way {
    There,
    Back,
}

pub struct Stale {
    /// By function.
    nodes: Vec<BTreeSet<NodeId>>,
    /// Those that have any.
    functions: BTreeSet<usize>,
    /// By function and node: who reads it.
    users: Vec<Vec<SmallVec<[NodeId; 4]>>>,
    /// By function: its calls.
    calls: Vec<Vec<(usize, NodeId)>>,
    /// By function and node: whether calls hand it over.
    is_border: Vec<Vec<bool>>,
    /// By parameter of a program: its copies, which are held as it is.
    copies: HashMap<Site, Vec<Site>>,
}

impl Stale {
    /// Every node.
    pub fn all(module: &Module, table: &mut AxisAssignment) -> Self {
        table.changed.clear();
        let mut calls = vec![vec![]; module.functions.len()];
        for (f, function) in module.functions.iter() {
            for (id, node) in function.nodes.iter() {
                if let Inst::Call(call) = &node.inst {
                    calls[call.callee.index()].push((f.index(), id));
                }
            }
        }
        let border = |function: &Function| {
            let mut border = function.returned();
            function.params.iter().for_each(|param| border[param.index()] = true);
            border
        };
        let mut copies: HashMap<Site, Vec<Site>> = HashMap::new();
        for (copy, of) in table.copies() {
            copies.entry(of).or_default().push(copy);
        }
        let nodes: Vec<BTreeSet<NodeId>> = module.functions.iter().map(|(_, f)| f.nodes.ids().collect()).collect();
        Self {
            functions: (0..nodes.len()).filter(|&f| !nodes[f].is_empty()).collect(),
            nodes,
            users: module.functions.iter().map(|(_, f)| f.users()).collect(),
            calls,
            is_border: module.functions.iter().map(|(_, f)| border(f)).collect(),
            copies,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// The next function behind another, or the first.
    pub fn function(&self, after: Option<usize>, way: Way) -> Option<usize> {
        next(&self.functions, after, way)
    }

    /// The next node of a function behind another, or the first.
    pub fn node(&self, function: usize, after: Option<NodeId>, way: Way) -> Option<NodeId> {
        next(&self.nodes[function], after, way)
    }

    /// A node is looked at.
    pub fn done(&mut self, function: usize, node: NodeId) {
        self.nodes[function].remove(&node);
        if self.nodes[function].is_empty() {
            self.functions.remove(&function);
        }
    }

    /// Takes in what has changed in the table.
    pub fn note(&mut self, table: &mut AxisAssignment) {
        for site in std::mem::take(&mut table.changed) {
            self.touched(site);
            for copy in self.copies.get(&site).cloned().unwrap_or_default() {
                self.touched(copy);
            }
        }
    }

    fn touched(&mut self, (f, node, _): Site) {
        let f = f.index();
        self.add(f, node);
        for user in self.users[f][node.index()].clone() {
            self.add(f, user);
        }
        if self.is_border[f][node.index()] {
            for (caller, call) in self.calls[f].clone() {
                self.add(caller, call);
            }
        }
    }

    fn add(&mut self, function: usize, node: NodeId) {
        self.nodes[function].insert(node);
        self.functions.insert(function);
    }
}

fn next<T: Ord + Copy>(of: &BTreeSet<T>, after: Option<T>, way: Way) -> Option<T> {
    match (after, way) {
        (None, Way::There) => of.first().copied(),
        (None, Way::Back) => of.last().copied(),
        (Some(after), Way::There) => of.range((Excluded(after), Unbounded)).next().copied(),
        (Some(after), Way::Back) => of.range((Unbounded, Excluded(after))).next_back().copied(),
    }
}
