//! The update of one parameter; of a family, one function called over its stacks.

use std::collections::HashMap;

use ir::ops::{Adamw, Compare, Select};
use ir::{Builder, Call, Function, Id, Inst, Module, NodeId, Type};
use types::{DType, TensorType};

use super::{Optimizer, OptimizerKind};

/// The elements' types and sizes, and the type of a copy.
type Key = (Vec<(DType, Vec<usize>)>, Option<DType>);

pub struct Updates<'a> {
    optimizer: &'a Optimizer,
    /// Scalars that all updates read: the guard, the learning rate, AdamW's bias corrections, the clipping coefficient.
    shared: Vec<NodeId>,
    /// By the types of a stack's elements without their names: calls go by position.
    functions: HashMap<Key, Id<Function>>,
}

impl<'a> Updates<'a> {
    pub fn new(optimizer: &'a Optimizer, shared: Vec<NodeId>) -> Self {
        Self { optimizer, shared, functions: HashMap::new() }
    }

    /// `own` is the parameter, its gradient, and its moments; the results are the new parameter and moments, and the
    /// parameter in the type of its copy.
    pub fn apply(&mut self, module: &mut Module, b: &mut Builder, own: &[NodeId], copy: Option<DType>) -> Vec<NodeId> {
        let Type::Stack { count, .. } = *b.function.ty(own[0]) else {
            return update(self.optimizer, b, &self.shared, own, copy);
        };
        let elements: Vec<TensorType> = own.iter().filter_map(|&x| b.function.ty(x).element().cloned()).collect();
        let key = (elements.iter().map(|t| (t.dtype, t.sizes().to_vec())).collect(), copy);
        let scalars: Vec<Type> = self.shared.iter().map(|&s| b.function.ty(s).clone()).collect();
        let optimizer = self.optimizer;
        let callee =
            *self.functions.entry(key).or_insert_with(|| function(module, optimizer, scalars, &elements, copy));
        let call = Call { callee, times: Some(count), carried: 0, shared: self.shared.len(), reverse: false };
        let operands: Vec<NodeId> = self.shared.iter().chain(own).copied().collect();
        let mut types: Vec<Type> =
            std::iter::once(&own[0]).chain(&own[2..]).map(|&x| b.function.ty(x).clone()).collect();
        types.extend(copy.map(|dtype| b.function.ty(own[0]).map(&|ty| ty.with_dtype(dtype))));
        let ty = if types.len() == 1 { types.remove(0) } else { Type::Tuple(types) };
        let call = b.push(Inst::Call(call), operands, ty);
        b.results(call).to_vec()
    }
}

fn function(
    module: &mut Module,
    optimizer: &Optimizer,
    scalars: Vec<Type>,
    elements: &[TensorType],
    copy: Option<DType>,
) -> Id<Function> {
    let sizes: Vec<String> = elements[0].dims.iter().map(|d| d.size.to_string()).collect();
    let kind = match optimizer.kind {
        OptimizerKind::Adamw => "adamw",
        OptimizerKind::Sgd => "sgd",
    };
    let mut b = Builder::new(module.fresh_name(&format!("{kind}.{}", sizes.join("x"))));
    let shared: Vec<NodeId> = scalars.into_iter().map(|ty| b.param(ty)).collect();
    let own: Vec<NodeId> = elements.iter().map(|ty| b.param(ty.clone())).collect();
    let results = update(optimizer, &mut b, &shared, &own, copy);
    b.function.results.extend(results);
    module.functions.add(b.function)
}

fn update(
    optimizer: &Optimizer,
    b: &mut Builder,
    shared: &[NodeId],
    own: &[NodeId],
    copy: Option<DType>,
) -> Vec<NodeId> {
    let (p, g) = (own[0], own[1]);
    let ty = b.ty(p).clone();
    let full = wide(ty.dtype);
    let shared: Vec<NodeId> = shared.iter().map(|&s| b.cast(s, full)).collect();
    let g = b.reshape(g, &ty);
    let mut g = b.cast(g, full);
    if optimizer.clip > 0.0 {
        g = b.mul(g, shared[shared.len() - 1]);
    }
    // Without the update, what it replaces stays as it is.
    let guard = shared[0];
    let mut results = match optimizer.kind {
        OptimizerKind::Adamw => {
            let &Optimizer { beta1, beta2, eps, weight_decay, .. } = optimizer;
            let step = Adamw { beta1, beta2, eps, weight_decay };
            let step = b.op(step, &[p, own[2], own[3], g, shared[1], shared[2], shared[3], guard]);
            b.results(step).to_vec()
        }
        OptimizerKind::Sgd => {
            let x = b.cast(p, full);
            if optimizer.weight_decay > 0.0 {
                let decay = b.scale(x, optimizer.weight_decay);
                g = b.add(g, decay);
            }
            let change = b.mul(g, shared[1]);
            // x - 0 is x to the bit, and the parameter is read once.
            let (finite, zero) = (Compare::finite(b, guard), b.constant(0.0, full));
            let change = b.op(Select {}, &[finite, change, zero]);
            let moved = b.sub(x, change);
            vec![b.cast(moved, ty.dtype)]
        }
    };
    results.extend(copy.map(|dtype| b.cast(results[0], dtype)));
    results
}

/// The type in which an update is computed.
pub fn wide(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}
