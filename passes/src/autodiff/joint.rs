//! The joint graph of a function: its own nodes, and after them the nodes that compute its cotangents.
//!
//! Forward and backward are built together so that gradient rules may read any forward value; which ones they did read
//! decides afterwards what is kept. Every call has a tuple type here, so that residuals can join its results.

use std::collections::HashSet;

use diag::{Diagnostics, PlaceId};
use ir::ops::Matmul;
use ir::{Builder, Call, Function, Inst, NodeId, Op, Type, Vjp};
use smallvec::{SmallVec, smallvec};
use types::{DType, TensorType};

use super::calls::Site;
use super::derivative::Derivatives;
use crate::activity;
use crate::diagnostics;

pub struct Joint {
    pub b: Builder,
    pub params: Vec<NodeId>,
    pub results: Vec<NodeId>,
    /// Nodes below this one are forward.
    split: usize,
    /// Residuals of calls: forward values whose nodes were made on the way back.
    late: HashSet<NodeId>,
    /// For each forward value, what users have added to its cotangent so far.
    parts: Vec<SmallVec<[NodeId; 2]>>,
}

/// One forward node: the operator itself, and a node for each of its results.
#[derive(Clone, Default)]
struct Made {
    node: Option<NodeId>,
    values: SmallVec<[NodeId; 1]>,
}

impl Joint {
    pub fn is_forward(&self, id: NodeId) -> bool {
        id.index() < self.split || self.late.contains(&id)
    }

    /// The sum of all that users added; asked for once all users were visited.
    pub fn cotangent(&mut self, derivatives: &mut Derivatives<'_>, value: NodeId) -> Option<NodeId> {
        let mut parts = std::mem::take(&mut self.parts[value.index()]).into_iter();
        let first = parts.next()?;
        Some(parts.fold(first, |sum, part| derivatives.add(&mut self.b, sum, part)))
    }

    /// Adds to the cotangent of `value`, under exactly its type.
    pub fn give(&mut self, value: NodeId, part: NodeId) {
        let to = self.b.function.ty(value).clone();
        let part = match &to {
            Type::Tensor(to) => fit(&mut self.b, part, to),
            _ => part,
        };
        self.parts[value.index()].push(part);
    }

    /// A result of a forward call that was added on the way back.
    pub fn residual(&mut self, call: NodeId, index: usize, ty: Type) -> NodeId {
        let id = self.b.push(Inst::Get(index), [call], ty);
        self.late.insert(id);
        id
    }

    /// Stands for a parameter of the backward function.
    pub fn placeholder(b: &mut Builder, ty: Type) -> NodeId {
        b.push(Inst::Param(usize::MAX), [], ty)
    }
}

/// Gradient rules are free in the names of dims and in precision; a cotangent is not.
fn fit(b: &mut Builder, x: NodeId, to: &TensorType) -> NodeId {
    let x = b.cast(x, to.dtype);
    b.reshape(x, to)
}

impl Derivatives<'_> {
    /// The joint graph of `function` by the parameters marked in `wanted`; `seed` gives the cotangents of results.
    pub fn joint(
        &mut self,
        function: &Function,
        wanted: &[bool],
        seed: &mut dyn FnMut(&mut Builder, usize) -> Option<NodeId>,
    ) -> Result<Joint, Diagnostics> {
        let live = function.live();
        let active = activity::values(self.module, function, wanted);
        let mut b = Builder::new(function.name.clone());
        let made = forward(&mut b, function, &live);
        let value = |id: NodeId| made[id.index()].values[0];
        let split = b.function.nodes.len();
        let mut joint = Joint {
            params: function.params.iter().map(|&p| value(p)).collect(),
            results: function.results.iter().map(|&r| value(r)).collect(),
            b,
            split,
            late: HashSet::new(),
            parts: vec![SmallVec::new(); split],
        };
        for (i, r) in function.results.iter().enumerate() {
            if active[r.index()].iter().any(|a| *a)
                && let Some(seed) = seed(&mut joint.b, i)
            {
                joint.give(joint.results[i], seed);
            }
        }
        for (id, node) in function.nodes.iter().rev() {
            if !live[id.index()]
                || matches!(node.inst, Inst::Param(_) | Inst::Get(_))
                || !active[id.index()].iter().any(|a| *a)
            {
                continue;
            }
            joint.b.place = node.place;
            let here = &made[id.index()];
            let cotangents: Vec<Option<NodeId>> = here.values.iter().map(|&v| joint.cotangent(self, v)).collect();
            if cotangents.iter().all(Option::is_none) {
                continue;
            }
            let args: Vec<NodeId> = node.args.iter().map(|&a| value(a)).collect();
            let wanted: Vec<bool> = node.args.iter().map(|a| active[a.index()].iter().any(|a| *a)).collect();
            match (&node.inst, here.node, cotangents[0]) {
                (Inst::Op(op), _, _) => {
                    let gradients = match wide_product(&mut joint.b, op, &args, cotangents[0]) {
                        Some(wide) => smallvec![Some(wide)],
                        None => vjp(&mut joint.b, op, &args, &here.values, &cotangents, &wanted),
                    };
                    if let Some(mismatch) = joint.b.mismatch() {
                        return Err(self.refused(op, node.place, mismatch));
                    }
                    for (i, gradient) in gradients.into_iter().enumerate() {
                        if let (true, Some(gradient)) = (wanted[i], gradient) {
                            joint.give(args[i], gradient);
                        }
                    }
                }
                (Inst::Call(call), Some(at), _) => {
                    let results = &here.values;
                    let site = Site { at, args: &args, results, active: &wanted, cotangents: &cotangents };
                    self.call(&mut joint, call, &site)?;
                }
                (Inst::Chunk { .. }, _, Some(g)) => {
                    let g = joint.b.unchunk(g);
                    joint.give(args[0], g);
                }
                (Inst::Unchunk, _, Some(g)) => {
                    let g = joint.b.chunk(g, joint.b.function.ty(args[0]).count());
                    joint.give(args[0], g);
                }
                (Inst::Repeat { .. }, _, Some(g)) => {
                    let g = self.total(&mut joint.b, g);
                    joint.give(args[0], g);
                }
                _ => {}
            }
        }
        joint.b.place = PlaceId::NONE;
        match joint.b.mismatch() {
            Some(mismatch) => Err(diagnostics::unfit("autodiff", function, mismatch)),
            None => Ok(joint),
        }
    }

    fn refused(&self, op: &Op, place: PlaceId, mismatch: &ir::Mismatch) -> Diagnostics {
        let error = diag::Diagnostic::error(format!("the gradient of `{}` failed: {mismatch}", op.name()));
        diagnostics::at(self.module, place, error).into()
    }
}

/// The cotangent of a narrowing cast of a weight: a product that rounds to the narrow type, only to be cast back. Its
/// sums are kept in f32 anyway, so that is what it gives.
fn wide_product(b: &mut Builder, op: &Op, args: &[NodeId], cotangent: Option<NodeId>) -> Option<NodeId> {
    let (Op::Cast(_), Some(cotangent)) = (op, cotangent) else { return None };
    let node = b.node(cotangent);
    let Inst::Op(Op::Matmul(product @ Matmul { dtype: None, .. })) = &node.inst else { return None };
    let (product, operands) = (Matmul { dtype: Some(DType::F32), ..product.clone() }, node.args.clone());
    let narrow = matches!(b.ty(cotangent).dtype, DType::BF16 | DType::F16);
    (narrow && b.ty(args[0]).dtype == DType::F32).then(|| b.op(product, &operands))
}

fn vjp(
    b: &mut Builder,
    op: &Op,
    args: &[NodeId],
    results: &[NodeId],
    cotangents: &[Option<NodeId>],
    wanted: &[bool],
) -> SmallVec<[Option<NodeId>; 4]> {
    op.vjp(&mut Vjp { b, args, results, cotangents, wanted })
}

/// The live nodes of `function`, with a `get` for each result of each node that has several or is a call.
fn forward(b: &mut Builder, function: &Function, live: &[bool]) -> Vec<Made> {
    let mut made: Vec<Made> = vec![Made::default(); function.nodes.len()];
    // Parameters first, used or not: they are the function's signature.
    for &p in &function.params {
        b.place = function.nodes[p].place;
        let new = b.param(function.ty(p).clone());
        made[p.index()] = Made { node: Some(new), values: [new].into_iter().collect() };
    }
    for (id, node) in function.nodes.iter() {
        if !live[id.index()] || matches!(node.inst, Inst::Param(_)) {
            continue;
        }
        b.place = node.place;
        if let Inst::Get(i) = node.inst {
            let value = made[node.args[0].index()].values[i];
            made[id.index()] = Made { node: None, values: [value].into_iter().collect() };
            continue;
        }
        let args: Vec<NodeId> = node.args.iter().map(|a| made[a.index()].values[0]).collect();
        let items = node.ty.items();
        let whole = matches!(node.inst, Inst::Call(Call { .. })) || matches!(node.ty, Type::Tuple(_));
        let ty = if whole { Type::Tuple(items.to_vec()) } else { node.ty.clone() };
        let new = b.push(node.inst.clone(), args, ty);
        let values = if whole {
            items.iter().enumerate().map(|(i, ty)| b.push(Inst::Get(i), [new], ty.clone())).collect()
        } else {
            [new].into_iter().collect()
        };
        made[id.index()] = Made { node: Some(new), values };
    }
    made
}
