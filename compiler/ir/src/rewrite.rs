//! Rebuilds a function node by node; what passes do instead of editing in place.

use crate::{Builder, Function, Inst, Mismatch, NodeId, Type};

/// Walk the old function in order; for each node either [`Rewriter::copy`] it or build others and [`Rewriter::set`]
/// what it became.
pub struct Rewriter<'f> {
    pub from: &'f Function,
    pub b: Builder,
    map: Vec<Option<NodeId>>,
}

impl<'f> Rewriter<'f> {
    /// Starts with the parameters of `from`, of the same types.
    pub fn new(from: &'f Function) -> Self {
        Self::with_param_types(from, |_, ty| ty.clone())
    }

    pub fn with_param_types(from: &'f Function, ty: impl Fn(usize, &Type) -> Type) -> Self {
        let empty =
            Function { name: from.name.clone(), kind: from.kind, recompute: from.recompute, ..Function::default() };
        let mut out = Self { from, b: Builder::extend(empty), map: vec![None; from.nodes.len()] };
        for (i, &p) in from.params.iter().enumerate() {
            out.b.place = from.nodes[p].place;
            let new = out.b.param(ty(i, from.ty(p)));
            out.b.function.nodes[new].shardings = from.nodes[p].shardings.clone();
            out.set(p, new);
        }
        out
    }

    /// What an old node has become.
    pub fn get(&self, old: NodeId) -> NodeId {
        self.map[old.index()].expect("operands are rewritten before their users")
    }

    pub fn done(&self, old: NodeId) -> bool {
        self.map[old.index()].is_some()
    }

    pub fn args(&self, old: NodeId) -> Vec<NodeId> {
        self.from.nodes[old].args.iter().map(|&a| self.get(a)).collect()
    }

    pub fn set(&mut self, old: NodeId, new: NodeId) {
        self.map[old.index()] = Some(new);
    }

    /// The same node over the new operands. Its type is inferred again if it is an operator, else kept.
    pub fn copy(&mut self, old: NodeId) -> NodeId {
        let args = self.args(old);
        self.copy_over(old, args)
    }

    /// The same over these operands.
    pub fn copy_over(&mut self, old: NodeId, args: Vec<NodeId>) -> NodeId {
        let node = &self.from.nodes[old];
        self.b.place = node.place;
        let new = match &node.inst {
            Inst::Op(op) => self.b.op(op.clone(), &args),
            inst => self.b.push(inst.clone(), args, node.ty.clone()),
        };
        self.b.function.nodes[new].shardings = node.shardings.clone();
        self.set(old, new);
        new
    }

    /// Copies all live nodes that are not set yet and closes the function with the old results.
    pub fn finish(mut self) -> Result<Function, Mismatch> {
        let live = self.from.live();
        for id in self.from.nodes.ids() {
            if live[id.index()] && !self.done(id) {
                self.copy(id);
            }
        }
        let results = self.from.results.iter().map(|&r| self.get(r)).collect();
        let mut function = self.b.finish()?;
        function.results = results;
        Ok(function)
    }
}
