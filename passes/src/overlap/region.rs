//! What falls into pieces together with a collective: products beside it and what stands between, and the dim along which
//! each of their values is cut.

use std::collections::BTreeMap;

use ir::{Class, Collective, FactorKind, Function, Inst, NodeId, Op};
use smallvec::SmallVec;
use types::{Dim, TensorType};

/// One dim of a tensor. It counts `outer` runs, as where ranks' parts were joined, and each of the runs falls into pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cut {
    pub dim: usize,
    pub outer: usize,
}

#[derive(Clone, Debug)]
pub struct Region {
    pub collective: NodeId,
    /// By member, the collective among them: operands come first.
    pub steps: BTreeMap<NodeId, Step>,
    /// Elements that fall into pieces.
    pub size: usize,
    /// Members that others read.
    pub outputs: Vec<NodeId>,
}

/// How one node's operands and result are cut.
#[derive(Clone, Debug)]
pub struct Step {
    pub args: SmallVec<[Option<Cut>; 4]>,
    pub result: Cut,
}

/// Ways back from a sum to a product are no longer than this.
const DEPTH: usize = 12;

/// So many nodes behind a collective may be of its region, which no block of a model has.
const REACH: usize = 1024;

/// By node: the nodes that read it, and whether the function gives it.
pub struct Readers {
    users: Vec<SmallVec<[NodeId; 4]>>,
    returned: Vec<bool>,
}

impl Readers {
    pub fn of(function: &Function) -> Self {
        Self { users: function.users(), returned: function.returned() }
    }
}

/// All regions of one collective.
pub fn around(function: &Function, readers: &Readers, collective: NodeId) -> Vec<Region> {
    let [operand] = function.nodes[collective].args[..] else { return vec![] };
    let mut found = vec![];
    let only = |id: NodeId| readers.users[id.index()].len() == 1 && !readers.returned[id.index()];
    if let Some(chain) = back(function, operand, &only, DEPTH) {
        found.extend(behind(function, collective, &chain));
    }
    let rank = function.ty(operand).tensor().map_or(0, TensorType::rank);
    found.extend((0..rank).filter_map(|dim| before(function, readers, collective, (operand, dim), &only)));
    found
}

impl Region {
    /// Whether the collective comes before products, not behind one.
    pub fn gathers(&self) -> bool {
        self.steps.first_key_value().is_some_and(|(first, _)| *first == self.collective)
    }
}

/// From a product to a node, each read by the next alone.
fn back(function: &Function, id: NodeId, only: &dyn Fn(NodeId) -> bool, depth: usize) -> Option<Vec<NodeId>> {
    let Inst::Op(op) = &function.nodes[id].inst else { return None };
    if depth == 0 || !only(id) {
        return None;
    }
    match op.class() {
        Class::Contract => Some(vec![id]),
        Class::View | Class::Elementwise | Class::Move => {
            let mut way = function.nodes[id].args.iter().find_map(|arg| back(function, *arg, only, depth - 1))?;
            way.push(id);
            Some(way)
        }
        _ => None,
    }
}

/// Regions of a product and the collective behind it, one for each dim of the product that can be cut.
fn behind(function: &Function, collective: NodeId, chain: &[NodeId]) -> Vec<Region> {
    let Some(rank) = function.ty(chain[0]).tensor().map(TensorType::rank) else { return vec![] };
    let region = |dim: usize| {
        let (product, size) = seed(function, chain[0], dim)?;
        let mut steps = BTreeMap::from([(chain[0], product)]);
        for &id in chain[1..].iter().chain([&collective]) {
            let step = step(function, id, size, |arg| steps.get(&arg).map(|step| step.result))?;
            let fits = |(arg, cut): (&NodeId, &Option<Cut>)| match steps.get(arg) {
                Some(known) => *cut == Some(known.result),
                None => cut.is_none_or(|cut| cut.outer == 1),
            };
            if !function.nodes[id].args.iter().zip(&step.args).all(fits) {
                return None;
            }
            steps.insert(id, step);
        }
        Some(Region { collective, steps, size, outputs: vec![collective] })
    };
    (0..rank).filter_map(region).collect()
}

/// The collective and the products that read what it brings along `dim` of its operand, with what follows them elementwise.
fn before(
    function: &Function,
    readers: &Readers,
    collective: NodeId,
    (operand, dim): (NodeId, usize),
    only: &dyn Fn(NodeId) -> bool,
) -> Option<Region> {
    let (cut, size) = (Cut { dim, outer: 1 }, function.ty(operand).tensor()?.dims[dim].size);
    let first = step(function, collective, size, |arg| (arg == operand).then_some(cut))?;
    let mut steps = BTreeMap::from([(collective, first)]);
    let mut is_product = BTreeMap::from([(collective, false)]);
    // By node from the collective on.
    let first = collective.index();
    let end = function.nodes.len().min(first + 1 + REACH);
    let mut depends = vec![false; end - first];
    depends[0] = true;
    for id in (first + 1..end).map(NodeId::new) {
        let node = &function.nodes[id];
        let read: Vec<NodeId> = node.args.iter().copied().filter(|arg| steps.contains_key(arg)).collect();
        let follows: SmallVec<[bool; 4]> =
            node.args.iter().map(|arg| arg.index().checked_sub(first).is_some_and(|at| depends[at])).collect();
        depends[id.index() - first] = follows.contains(&true);
        if read.is_empty() {
            continue;
        }
        let class = match &node.inst {
            Inst::Op(op) => op.class(),
            _ => Class::Collective,
        };
        let whole = read.iter().any(|arg| !is_product[arg]);
        let may = match class {
            Class::Contract => whole,
            Class::View | Class::Move => whole,
            Class::Elementwise => whole || read.iter().all(|arg| only(*arg)),
            _ => false,
        };
        let known = |arg| steps.get(&arg).map(|step: &Step| step.result);
        let step = step(function, id, size, known).filter(|step| {
            node.args.iter().zip(&follows).zip(&step.args).all(|((arg, follows), cut)| match steps.get(arg) {
                Some(known) => *cut == Some(known.result),
                None => !follows && cut.is_none_or(|cut| cut.outer == 1),
            })
        });
        match step.filter(|_| may) {
            Some(step) => {
                steps.insert(id, step);
                is_product.insert(id, class == Class::Contract || read.iter().any(|arg| is_product[arg]));
            }
            // What is gathered would be needed whole anyway.
            None if whole => return None,
            None => {}
        }
    }
    let users = |id: &NodeId| &readers.users[id.index()];
    let needed_whole = |id: &NodeId| readers.returned[id.index()] || users(id).iter().any(|user| user.index() >= end);
    if steps.keys().any(|id| !is_product[id] && needed_whole(id)) {
        return None;
    }
    let read_outside =
        |id: &NodeId| users(id).iter().any(|user| !steps.contains_key(user)) || readers.returned[id.index()];
    let outputs: Vec<NodeId> = steps.keys().copied().filter(|id| is_product[id] && read_outside(id)).collect();
    (!outputs.is_empty()).then_some(Region { collective, steps, size, outputs })
}

/// A product cut along a dim of its result, and how long that is.
fn seed(function: &Function, id: NodeId, dim: usize) -> Option<(Step, usize)> {
    let (op, args, result) = operator(function, id)?;
    let factors = op.factors(&args, std::slice::from_ref(result));
    let [f] = factors.results.first()?.get(dim)?[..] else { return None };
    let step = by_factor(&factors, f, 1)?;
    Some((step, factors.factors[f].size))
}

/// How a node is cut if so much is known of its operands.
fn step(function: &Function, id: NodeId, size: usize, known: impl Fn(NodeId) -> Option<Cut>) -> Option<Step> {
    let (op, args, result) = operator(function, id)?;
    let (at, cut) = function.nodes[id].args.iter().enumerate().find_map(|(i, arg)| Some((i, known(*arg)?)))?;
    match op.class() {
        Class::View => {
            Some(Step { args: [Some(cut)].into_iter().collect(), result: viewed(args[0], result, cut, size)? })
        }
        Class::Collective => {
            let dim = match op.collective()? {
                Collective::AllReduce { .. } => cut.dim,
                // The pieces of the ranks stand along the first dim.
                Collective::AllGather { .. } => cut.dim + 1,
                Collective::ReduceScatter { .. } => cut.dim.checked_sub(1)?,
                _ => return None,
            };
            Some(Step { args: [Some(cut)].into_iter().collect(), result: Cut { dim, ..cut } })
        }
        Class::Elementwise | Class::Contract | Class::Move if op.indices(&args).is_none() => {
            let factors = op.factors(&args, std::slice::from_ref(result));
            let [f] = factors.args.get(at)?.get(cut.dim)?[..] else { return None };
            by_factor(&factors, f, cut.outer)
        }
        _ => None,
    }
}

fn operator(function: &Function, id: NodeId) -> Option<(&Op, SmallVec<[&TensorType; 4]>, &TensorType)> {
    let node = &function.nodes[id];
    let Inst::Op(op) = &node.inst else { return None };
    let args: Option<SmallVec<_>> = node.args.iter().map(|arg| function.ty(*arg).tensor()).collect();
    Some((op, args?, node.ty.tensor()?))
}

/// All that has the factor is cut along it, and has it in one dim that is nothing else.
fn by_factor(factors: &ir::Factors, f: usize, outer: usize) -> Option<Step> {
    if factors.factors[f].kind != FactorKind::Parallel {
        return None;
    }
    let dim = |dims: &Vec<SmallVec<[usize; 2]>>| -> Option<Option<Cut>> {
        let mut with = (0..dims.len()).filter(|d| dims[*d].contains(&f));
        match (with.next(), with.next()) {
            (None, _) => Some(None),
            (Some(dim), None) if dims[dim].len() == 1 => Some(Some(Cut { dim, outer })),
            _ => None,
        }
    };
    let args: Option<SmallVec<_>> = factors.args.iter().map(dim).collect();
    Some(Step { args: args?, result: dim(factors.results.first()?)?? })
}

/// The dim of another view that counts the same elements as its last ones.
fn viewed(from: &TensorType, to: &TensorType, cut: Cut, size: usize) -> Option<Cut> {
    let inner = |dims: &[Dim]| dims.iter().map(|d| d.size).product::<usize>();
    let behind = inner(&from.dims[cut.dim + 1..]);
    let fits = |dim: &usize| {
        let of = to.dims[*dim].size;
        of.is_multiple_of(size) && inner(&to.dims[dim + 1..]) == behind
    };
    let dim = (0..to.dims.len()).find(fits)?;
    Some(Cut { dim, outer: to.dims[dim].size / size })
}
