//! What tells whether a step may update anything: one number that is finite if the loss and the gradient norm are.

use ir::ops::{Abs, Compare, Select};
use ir::{Builder, NodeId, Output, Program};
use types::DType;

/// `results` are those of the program so far; `norm` is of all gradients together.
pub fn of(b: &mut Builder, program: &Program, results: &[NodeId], norm: NodeId) -> NodeId {
    let mut guard = norm;
    for (output, &result) in program.outputs.iter().zip(results) {
        let number = b.function.ty(result).tensor().is_some_and(|ty| ty.rank() == 0 && ty.dtype.is_float());
        if !number || !matches!(output, Output::Emit(_)) {
            continue;
        }
        let loss = b.cast(result, DType::F32);
        let size = b.op(Abs {}, &[loss]);
        // What is not finite stays, whatever comes after it.
        let finite = Compare::finite(b, guard);
        guard = b.op(Select {}, &[finite, size, guard]);
    }
    guard
}
