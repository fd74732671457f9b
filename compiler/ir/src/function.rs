//! A function: a straight line of nodes, each one instruction with one (maybe tuple) value.

use diag::PlaceId;
use smallvec::SmallVec;
use types::Name;

use crate::{Arena, Id, Op, Sharding, Type};

pub type NodeId = Id<Node>;

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub inst: Inst,
    pub args: SmallVec<[NodeId; 4]>,
    pub ty: Type,
    /// One for each tensor of the type; none where nothing is said.
    pub shardings: SmallVec<[Sharding; 1]>,
    pub place: PlaceId,
}

impl Node {
    /// The sharding of the `i`-th tensor of the type; whole where nothing is said.
    pub fn sharding(&self, i: usize) -> Sharding {
        self.shardings.get(i).cloned().unwrap_or_default()
    }
}

/// What a node does. Everything but an operator is structure: it moves values between functions and stacks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Inst {
    /// The n-th parameter of the function.
    Param(usize),
    /// The n-th item of a tuple, or the n-th tensor of a stack.
    Get(usize),
    Call(Call),
    /// A tensor as a stack of equal pieces along its first dim: `[T:12, H:4]` as `3 x [T:4, H:4]`.
    Chunk {
        count: usize,
    },
    /// The inverse of `Chunk`.
    Unchunk,
    /// A stack whose every element is the tensor given.
    Repeat {
        count: usize,
    },
    Op(Op),
}

/// A call, once or several times in a row.
///
/// Operands, in order: `carried` values that each call hands to the next, `shared` values that every call reads, and
/// then stacks of which the i-th call reads the i-th element. Results: the carried values after the last call, then
/// one stack for each further result. `times: None` is a plain call: all operands count as shared, all results plain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    pub callee: Id<Function>,
    pub times: Option<usize>,
    pub carried: usize,
    pub shared: usize,
    /// The last element of each stack comes first: what a backward pass does.
    pub reverse: bool,
}

impl Call {
    pub fn once(callee: Id<Function>) -> Self {
        Self { callee, times: None, carried: 0, shared: 0, reverse: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FunctionKind {
    #[default]
    Plain,
    /// Made by the `group` pass: what a target compiles as one unit.
    Kernel,
}

/// Invariant: nodes stand in an order in which operands come before their users.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Function {
    pub name: Name,
    pub kind: FunctionKind,
    /// Its backward keeps no residuals but its operands: the body is computed again (a model's own hint, or recompute's).
    pub recompute: bool,
    pub nodes: Arena<Node>,
    pub params: Vec<NodeId>,
    pub results: Vec<NodeId>,
}

impl Function {
    pub fn new(name: impl Into<Name>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    pub fn ty(&self, node: NodeId) -> &Type {
        &self.nodes[node].ty
    }

    pub fn param_types(&self) -> impl Iterator<Item = &Type> {
        self.params.iter().map(|&p| self.ty(p))
    }

    pub fn result_types(&self) -> impl Iterator<Item = &Type> {
        self.results.iter().map(|&r| self.ty(r))
    }

    /// For each node, the nodes that read it; results of the function do not count.
    pub fn users(&self) -> Vec<SmallVec<[NodeId; 4]>> {
        let mut users: Vec<SmallVec<[NodeId; 4]>> = vec![SmallVec::new(); self.nodes.len()];
        for (id, node) in self.nodes.iter() {
            for arg in &node.args {
                users[arg.index()].push(id);
            }
        }
        users
    }

    /// Which nodes are results.
    pub fn returned(&self) -> Vec<bool> {
        let mut returned = vec![false; self.nodes.len()];
        self.results.iter().for_each(|result| returned[result.index()] = true);
        returned
    }

    /// Which nodes a result depends on. Parameters count only if they are used.
    pub fn live(&self) -> Vec<bool> {
        self.ancestors(self.results.iter().copied())
    }

    /// Which nodes these are, or depend on.
    pub fn ancestors(&self, of: impl IntoIterator<Item = NodeId>) -> Vec<bool> {
        let mut found = vec![false; self.nodes.len()];
        of.into_iter().for_each(|id| found[id.index()] = true);
        for (id, node) in self.nodes.iter().rev() {
            if found[id.index()] {
                node.args.iter().for_each(|arg| found[arg.index()] = true);
            }
        }
        found
    }
}
