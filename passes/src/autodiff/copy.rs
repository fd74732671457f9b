//! Copies chosen nodes of a joint graph into a function.

use ir::{Builder, Function, Inst, Mismatch, NodeId, Type};
use types::Name;

use super::joint::Joint;

pub struct Copy {
    b: Builder,
    map: Vec<Option<NodeId>>,
}

impl Copy {
    pub fn new(name: Name) -> Self {
        Self { b: Builder::new(name), map: vec![] }
    }

    /// Makes a parameter that `node` becomes.
    pub fn param(&mut self, joint: &Joint, node: NodeId) {
        self.b.place = joint.b.node(node).place;
        let new = self.b.param(joint.b.function.ty(node).clone());
        self.set(joint, node, new);
    }

    fn set(&mut self, joint: &Joint, node: NodeId, new: NodeId) {
        self.map.resize(joint.b.function.nodes.len(), None);
        self.map[node.index()] = Some(new);
    }

    fn get(&self, node: NodeId) -> Option<NodeId> {
        self.map.get(node.index()).copied().flatten()
    }

    /// Copies what `roots` need, in the order of the joint graph. The roots become the results.
    pub fn finish(mut self, joint: &Joint, roots: &[NodeId]) -> Result<Function, Mismatch> {
        let nodes = &joint.b.function.nodes;
        self.map.resize(nodes.len(), None);
        let mut needed = vec![false; nodes.len()];
        for r in roots {
            needed[r.index()] = true;
        }
        for (id, node) in nodes.iter().rev() {
            if needed[id.index()] && self.get(id).is_none() {
                for arg in &node.args {
                    needed[arg.index()] = true;
                }
            }
        }
        for (id, node) in nodes.iter() {
            if !needed[id.index()] || self.get(id).is_some() {
                continue;
            }
            self.b.place = node.place;
            let args: Option<Vec<NodeId>> = node.args.iter().map(|&a| self.get(a)).collect();
            let args = args.ok_or_else(|| Mismatch::new(format!("the joint graph uses {id} before its operands")))?;
            let new = match (&node.inst, &node.ty) {
                // A call with one result has no tuple.
                (Inst::Call(_), Type::Tuple(items)) if items.len() == 1 => {
                    self.b.push(node.inst.clone(), args, items[0].clone())
                }
                (Inst::Get(_), _) if !matches!(self.b.function.ty(args[0]), Type::Tuple(_)) => args[0],
                (inst, ty) => self.b.push(inst.clone(), args, ty.clone()),
            };
            self.map[id.index()] = Some(new);
        }
        let results: Option<Vec<NodeId>> = roots.iter().map(|&r| self.get(r)).collect();
        let mut function = self.b.finish()?;
        function.results = results.ok_or_else(|| Mismatch::new("a result was not copied"))?;
        Ok(function)
    }
}
