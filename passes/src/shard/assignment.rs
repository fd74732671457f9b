//! The axes found so far for each dim of each tensor of a module.

use std::collections::HashMap;

use ir::{Axes, Factors, Function, Id, Input, Inst, Module, NodeId, Op, Type};
use smallvec::SmallVec;
use types::{Mesh, Name, TensorType};

/// Whose hint an axis on a dim is; the first wins where an operator cannot have both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    Model,
    SequenceParallel,
    Store,
}

/// The axes that cut one dim, major first, each with whose hint it is.
pub type DimAxes = SmallVec<[(Name, Rank); 2]>;
pub type TensorAxes = SmallVec<[DimAxes; 4]>;

pub fn names(axes: &[(Name, Rank)]) -> Axes {
    axes.iter().map(|(name, _)| name.clone()).collect()
}

/// By function, node and tensor of the node's type.
pub struct AxisAssignment {
    pub mesh: Mesh,
    pub functions: Vec<Vec<SmallVec<[TensorAxes; 1]>>>,
    /// Tensors that take none of the axes over which the optimiser's state alone is stored in parts.
    pub closed: Vec<Site>,
    pub closed_to: Vec<Name>,
    /// Copies of parameters: each is held as the parameter is.
    alike: HashMap<Site, Site>,
    /// Factors of operators, by function and node.
    pub factors: Vec<Vec<Option<Factors>>>,
    /// What was extended since somebody last took note.
    pub changed: Vec<Site>,
}

pub type Site = (Id<Function>, NodeId, usize);

impl AxisAssignment {
    pub fn new(module: &Module) -> Self {
        let of = |ty: &TensorType| TensorAxes::from_elem(DimAxes::new(), ty.rank());
        let mut functions = vec![];
        let mut factors = vec![];
        for (_, function) in module.functions.iter() {
            functions.push(function.nodes.iter().map(|(_, n)| tensors(&n.ty).map(of).collect()).collect());
            factors.push(function.nodes.iter().map(|(id, _)| operator(function, id).map(|(_, f)| f)).collect());
        }
        let (mesh, alike) = (module.mesh.clone(), copies(module));
        Self { mesh, functions, closed: vec![], closed_to: vec![], alike, factors, changed: vec![] }
    }

    pub fn at(&self, site: Site) -> &TensorAxes {
        let (f, n, i) = self.alike.get(&site).copied().unwrap_or(site);
        &self.functions[f.index()][n.index()][i]
    }

    pub fn at_mut(&mut self, site: Site) -> &mut TensorAxes {
        let (f, n, i) = self.alike.get(&site).copied().unwrap_or(site);
        &mut self.functions[f.index()][n.index()][i]
    }

    /// Extends the axes of a dim to `wanted` as far as they agree and no other dim has the axis; whether it changed.
    pub fn extend(&mut self, site: Site, dim: usize, wanted: &[(Name, Rank)]) -> bool {
        let Some(own) = self.at(site).get(dim) else { return false };
        let have = own.len();
        let agrees = own.iter().zip(wanted).all(|((a, _), (b, _))| a == b);
        if !agrees || have >= wanted.len() {
            return false;
        }
        let closed = !self.closed_to.is_empty() && self.closed.contains(&site);
        let shut = |axis: &Name, rank: Rank| closed && rank == Rank::Store && self.closed_to.contains(axis);
        let open = wanted.iter().position(|(a, r)| shut(a, *r)).unwrap_or(wanted.len());
        let tensor = self.at_mut(site);
        for (axis, rank) in wanted.get(have..open).unwrap_or_default() {
            if tensor.iter().flatten().any(|(a, _)| a == axis) {
                break;
            }
            tensor[dim].push((axis.clone(), *rank));
        }
        let grew = tensor[dim].len() > have;
        if grew {
            self.changed.push(self.alike.get(&site).copied().unwrap_or(site));
        }
        grew
    }

    /// Copies of parameters, each with the parameter that it is held as.
    pub fn copies(&self) -> impl Iterator<Item = (Site, Site)> {
        self.alike.iter().map(|(copy, of)| (*copy, *of))
    }
}

/// By where a program takes a parameter's copy: where it takes the parameter.
fn copies(module: &Module) -> HashMap<Site, Site> {
    let mut alike = HashMap::new();
    for program in &module.programs {
        let params = &module.functions[program.function].params;
        for (input, &copy) in program.inputs.iter().zip(params) {
            let Input::State(name) = input else { continue };
            let Some(of) = module.states.get(name).and_then(ir::State::copy_of) else { continue };
            let at = program.inputs.iter().position(|i| matches!(i, Input::Parameter(n) if n == of));
            if let Some(&parameter) = at.and_then(|at| params.get(at)) {
                alike.insert((program.function, copy, 0), (program.function, parameter, 0));
            }
        }
    }
    alike
}

/// The tensors of a type: itself, a stack's element, or a tuple's items.
pub fn tensors(ty: &Type) -> impl Iterator<Item = &TensorType> {
    ty.items().iter().filter_map(Type::element)
}

/// The operator at a node with its factors.
pub fn operator(function: &Function, id: NodeId) -> Option<(&Op, Factors)> {
    let node = &function.nodes[id];
    let Inst::Op(op) = &node.inst else { return None };
    let args: Option<Vec<&TensorType>> = node.args.iter().map(|&a| function.ty(a).tensor()).collect();
    let results: Vec<TensorType> = tensors(&node.ty).cloned().collect();
    let factors = op.factors(&args?, &results);
    Some((op, factors))
}
