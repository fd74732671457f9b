//! Which forward values a backward function is given, and which it computes again.

use ir::{Class, Function, Inst, NodeId, Type};

use super::derivative::Read;
use super::joint::Joint;

/// What a backward function reads of the forward, each value with where it comes from.
#[derive(Default)]
pub struct Residuals {
    pub reads: Vec<(NodeId, Read)>,
    /// What the forward function returns beside its own results.
    pub saved: Vec<NodeId>,
}

/// How the operands of a function come to it.
#[derive(Clone, Copy)]
pub struct Split {
    /// Carried and shared operands of a repeated call; a plain call shares all.
    pub carried: usize,
    pub shared: usize,
    pub repeated: bool,
}

/// A value that would have to be saved but cannot be: a stack inside a repeated call.
#[derive(Debug)]
pub struct Unsaved;

/// What `roots` need. If `recompute`, operands are all that is read, and the rest is computed again.
///
/// Otherwise a value is computed again only if that is cheap and takes nothing that is not kept anyway: elementwise
/// functions of constants and of operands that the caller keeps, and widening moves of kept values. A value that the
/// forward returns as a result is read from there.
pub fn choose(
    joint: &Joint,
    function: &Function,
    split: Split,
    roots: &[NodeId],
    recompute: bool,
) -> Result<Residuals, Unsaved> {
    let nothing = vec![false; joint.b.function.nodes.len()];
    let mut chooser = Chooser { joint, split, free: vec![], seen: nothing.clone(), read: nothing };
    chooser.free = chooser.free_values();
    let mut out = Residuals::default();
    let mut later = vec![];
    for id in needed(joint, roots) {
        if !recompute && chooser.waits(id) {
            later.push(id);
        } else {
            chooser.resolve(id, function, recompute, &mut out)?;
        }
    }
    for id in later {
        // Moves and narrowing casts: again from their operand if that is there, else kept in place of it.
        let there = joint.b.node(id).args.iter().all(|a| chooser.read[a.index()]);
        if !there {
            chooser.keep(id, function, &mut out)?;
        }
    }
    Ok(out)
}

/// The forward values that backward nodes read, in order.
fn needed(joint: &Joint, roots: &[NodeId]) -> Vec<NodeId> {
    let nodes = &joint.b.function.nodes;
    let mut seen = vec![false; nodes.len()];
    let mut out = vec![];
    for r in roots {
        seen[r.index()] = true;
    }
    for (id, node) in nodes.iter().rev() {
        if !seen[id.index()] {
            continue;
        }
        if joint.is_forward(id) {
            out.push(id);
            continue;
        }
        for arg in &node.args {
            seen[arg.index()] = true;
        }
    }
    out.sort_unstable();
    out
}

struct Chooser<'a> {
    joint: &'a Joint,
    split: Split,
    free: Vec<bool>,
    seen: Vec<bool>,
    /// What is among the reads.
    read: Vec<bool>,
}

impl Chooser<'_> {
    /// Values that cost little to compute again from constants and operands that the caller keeps.
    fn free_values(&self) -> Vec<bool> {
        let nodes = &self.joint.b.function.nodes;
        let mut free = vec![false; nodes.len()];
        for (id, node) in nodes.iter().filter(|(id, _)| self.joint.is_forward(*id)) {
            let args = node.args.iter().all(|a| free[a.index()]);
            free[id.index()] = match &node.inst {
                Inst::Param(i) => *i >= self.split.carried,
                Inst::Op(op) => {
                    let cheap = matches!(op.class(), Class::Source | Class::Elementwise | Class::View | Class::Move);
                    cheap && args
                }
                Inst::Chunk { .. } | Inst::Unchunk | Inst::Repeat { .. } => args,
                Inst::Get(_) | Inst::Call(_) => false,
            };
        }
        free
    }

    /// Whether `id` is a move of one operand to as many bytes or fewer: worth keeping unless its operand is kept.
    fn waits(&self, id: NodeId) -> bool {
        self.moves(id).is_some_and(|grows| !grows) && !self.free[id.index()]
    }

    /// For an operator that only moves or casts its one operand: whether the result takes more bytes, or none (a view).
    fn moves(&self, id: NodeId) -> Option<bool> {
        let node = self.joint.b.node(id);
        let Inst::Op(op) = &node.inst else { return None };
        let (to, &[arg]) = (node.ty.tensor()?, node.args.as_slice()) else { return None };
        let from = self.joint.b.ty(arg);
        let computes = op.flops(&[from], std::slice::from_ref(to)) > 0;
        (!computes).then(|| op.class() == Class::View || to.bytes() > from.bytes())
    }

    /// Finds what `root` is read from: a list of its own and not calls within calls, since ways may be as long as the function.
    fn resolve(
        &mut self,
        root: NodeId,
        function: &Function,
        recompute: bool,
        out: &mut Residuals,
    ) -> Result<(), Unsaved> {
        let mut left = vec![root];
        while let Some(id) = left.pop() {
            if std::mem::replace(&mut self.seen[id.index()], true) {
                continue;
            }
            let node = self.joint.b.node(id);
            match node.inst {
                Inst::Param(i) if i >= self.split.carried => {
                    self.read[id.index()] = true;
                    out.reads.push((id, Read::Operand(i)));
                }
                Inst::Param(_) => self.keep(id, function, out)?,
                _ if !(recompute || self.free[id.index()] || self.moves(id) == Some(true)) => {
                    self.keep(id, function, out)?;
                }
                _ => left.extend(node.args.iter().rev()),
            }
        }
        Ok(())
    }

    fn keep(&mut self, id: NodeId, function: &Function, out: &mut Residuals) -> Result<(), Unsaved> {
        self.seen[id.index()] = true;
        if std::mem::replace(&mut self.read[id.index()], true) {
            return Ok(());
        }
        let first = if self.split.repeated { self.split.carried } else { 0 };
        let result = (first..function.results.len()).find(|&i| self.joint.results[i] == id);
        let read = match result {
            Some(i) => Read::Result(i),
            None if self.split.repeated && matches!(self.joint.b.node(id).ty, Type::Stack { .. }) => {
                return Err(Unsaved);
            }
            None => {
                out.saved.push(id);
                Read::Residual(out.saved.len() - 1)
            }
        };
        out.reads.push((id, read));
        Ok(())
    }
}
