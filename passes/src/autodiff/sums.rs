//! Sums of cotangents: of two of one type, and over the elements of a stack.

use ir::{Builder, Call, Function, Id, Inst, NodeId, Type};
use types::{DType, TensorType};

use super::derivative::Derivatives;

/// Sums over many layers are kept in f32 at least: each of forty bf16 additions would round.
pub fn accumulator(ty: &Type) -> Type {
    match ty {
        Type::Tensor(t) if matches!(t.dtype, DType::BF16 | DType::F16) => Type::Tensor(t.with_dtype(DType::F32)),
        _ => ty.clone(),
    }
}

impl Derivatives<'_> {
    /// `a + b`, of tensors or of stacks.
    pub fn add(&mut self, b: &mut Builder, x: NodeId, y: NodeId) -> NodeId {
        let Type::Stack { count, of } = b.function.ty(x).clone() else { return b.add(x, y) };
        let callee = self.sum_function("add", &of, &of);
        let call = Call { callee, times: Some(count), carried: 0, shared: 0, reverse: false };
        b.push(Inst::Call(call), [x, y], Type::Stack { count, of })
    }

    /// The sum of all elements of a stack.
    pub fn total(&mut self, b: &mut Builder, stack: NodeId) -> NodeId {
        let Type::Stack { count, of } = b.function.ty(stack).clone() else { return stack };
        let wide = accumulator(&Type::Tensor(of.clone()));
        let Type::Tensor(sum) = &wide else { return stack };
        let callee = self.sum_function("total", sum, &of);
        let start = b.zeros(sum);
        let call = Call { callee, times: Some(count), carried: 1, shared: 0, reverse: false };
        let total = b.push(Inst::Call(call), [start, stack], wide.clone());
        b.cast(total, of.dtype)
    }

    /// A zero of any type, to start a sum from.
    pub fn zero(&mut self, b: &mut Builder, ty: &Type) -> NodeId {
        match ty {
            Type::Tensor(t) => b.zeros(t),
            Type::Stack { count, of } => {
                let zero = b.zeros(of);
                b.repeat(zero, *count)
            }
            Type::Tuple(_) => {
                b.fail(ir::Mismatch::new("a tuple has no zero"));
                b.constant(0.0, DType::F32)
            }
        }
    }

    /// `@name(sum, x) = sum + x`, one for each pair of types.
    fn sum_function(&mut self, name: &str, sum: &TensorType, x: &TensorType) -> Id<Function> {
        let key = (name.to_owned(), sum.clone(), x.clone());
        if let Some(&known) = self.sums.get(&key) {
            return known;
        }
        let mut b = Builder::new(self.module.fresh_name(name));
        let (to, x) = (b.param(sum.clone()), b.param(x.clone()));
        let x = b.cast(x, sum.dtype);
        let result = b.add(to, x);
        b.function.results.push(result);
        let id = self.module.functions.add(b.function);
        self.sums.insert(key, id);
        id
    }
}
