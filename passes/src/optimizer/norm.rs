//! The norm of all gradients together, and clipping by it as torch.nn.utils.clip_grad_norm_ does it.

use std::collections::HashMap;

use ir::ops::{Min, Sqrt};
use ir::{Builder, Call, Function, Id, Inst, Module, NodeId, Type};
use types::{DType, TensorType};

/// The norm in f32. The sums go by parameter in the order given, and by layer within a family.
pub fn norm(module: &mut Module, b: &mut Builder, gradients: &[NodeId]) -> NodeId {
    let mut functions: HashMap<TensorType, Id<Function>> = HashMap::new();
    let mut sum: Option<NodeId> = None;
    for &gradient in gradients {
        let squares = match b.function.ty(gradient).clone() {
            Type::Stack { count, of } => {
                let callee = *functions.entry(of.clone()).or_insert_with(|| square_sum(module, &of));
                let start = b.constant(0.0, DType::F32);
                let call = Call { callee, times: Some(count), carried: 1, shared: 0, reverse: false };
                b.push(Inst::Call(call), [start, gradient], TensorType::scalar(DType::F32).into())
            }
            _ => squares(b, gradient),
        };
        sum = Some(match sum {
            Some(sum) => b.add(sum, squares),
            None => squares,
        });
    }
    let sum = sum.unwrap_or_else(|| b.constant(0.0, DType::F32));
    b.op(Sqrt {}, &[sum])
}

/// min(1, clip / (norm + 1e-6)).
pub fn coefficient(b: &mut Builder, norm: NodeId, clip: f64) -> NodeId {
    let norm = b.offset(norm, 1e-6);
    let clip = b.constant(clip, DType::F32);
    let ratio = b.div(clip, norm);
    let one = b.constant(1.0, DType::F32);
    b.op(Min {}, &[ratio, one])
}

fn squares(b: &mut Builder, x: NodeId) -> NodeId {
    let x = b.cast(x, DType::F32);
    let square = b.mul(x, x);
    let dims: Vec<_> = b.ty(square).dims.iter().map(|d| d.name.clone()).collect();
    b.reduce_sum(square, &dims)
}

/// `@square_sum(sum, x) = sum + sum of x * x`.
fn square_sum(module: &mut Module, of: &TensorType) -> Id<Function> {
    let mut b = Builder::new(module.fresh_name("square_sum"));
    let (sum, x) = (b.param(TensorType::scalar(DType::F32)), b.param(of.clone()));
    let own = squares(&mut b, x);
    let result = b.add(sum, own);
    b.function.results.push(result);
    module.functions.add(b.function)
}
