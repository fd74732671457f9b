//! `adamw`: one step of Adam with decoupled weight decay (Loshchilov and Hutter, 2017), as torch.optim.AdamW does it.
//!
//! p (1 - lr wd) - lr / c1 m' / (sqrt(v') / sqrt(c2) + eps), with m' = b1 m + (1 - b1) g and v' = b2 v + (1 - b2) g^2.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::TensorType;

use super::compare::{Comparison, LARGEST};
use super::elementwise::{QUOTIENT, arity, wide};
use super::{Compare, Select, Sqrt};
use crate::op::{Class, NodeIds, Semantics, Types, Vjp};
use crate::{Array, Builder, Mismatch, NodeId};

/// Operands p, m, v, g, and the scalars lr, c1 = 1 - b1^t and c2 = 1 - b2^t; results p', m', v'.
///
/// The scalars are f32 (f64 for an f64 parameter), and so are all steps in between; m, v and g may be of other types.
/// There may be an eighth operand, a scalar of 0 or more: if it is NaN or infinite, the results are p, m and v.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Adamw {
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
}

by_bits!(Adamw { ; beta1, beta2, eps, weight_decay });

impl Semantics for Adamw {
    const NAME: &'static str = "adamw";
    const CLASS: Class = Class::Composite;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        if args.len() != 8 {
            arity(args, 7, Self::NAME)?;
        }
        for (name, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(Mismatch::new(format!("`adamw` with a {name} of {beta:?}")).help("give 0 or more, below 1"));
            }
        }
        for (name, x) in [("eps", self.eps), ("weight_decay", self.weight_decay)] {
            if !((x as f32).is_finite() && x >= 0.0) {
                return Err(Mismatch::new(format!("`adamw` with `{name}` of {x:?}")).help("give a finite number, 0 or more"));
            }
        }
        let p = args[0];
        for (i, arg) in args.iter().enumerate().take(4) {
            if arg.dims != p.dims || !arg.dtype.is_float() {
                return Err(Mismatch::new(format!("`adamw` of `{p}` with `{arg}`")).of([0, i]));
            }
        }
        let scalar = TensorType::scalar(wide(p.dtype));
        if let Some(i) = (4..args.len()).find(|&i| *args[i] != scalar) {
            return Err(Mismatch::new(format!("operand {i} of `adamw` is `{}`, not `{scalar}`", args[i])).of([i]));
        }
        Ok(smallvec![p.clone(), args[1].clone(), args[2].clone()])
    }

    fn flops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        14 * args[0].elements() as u64
    }

    fn vector_ops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        (2 * QUOTIENT + 12) * args[0].elements() as u64
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.refuse(Self::NAME)
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        if args.get(7).is_some_and(|guard| !Comparison::LessEqual.holds(guard.data[0], LARGEST)) {
            return (0..3).map(|i| Array::new(results[i].clone(), args[i].data.clone())).collect();
        }
        let m = Array::zip(&results[1], &[args[1], args[3]], |x| self.beta1 * x[0] + (1.0 - self.beta1) * x[1]);
        let v = Array::zip(&results[2], &[args[2], args[3]], |x| self.beta2 * x[0] + (1.0 - self.beta2) * x[1] * x[1]);
        let (lr, c1, c2) = (args[4].data[0], args[5].data[0], args[6].data[0]);
        let p = Array::zip(&results[0], &[args[0], &m, &v], |x| {
            x[0] * (1.0 - lr * self.weight_decay) - lr / c1 * x[1] / (x[2].sqrt() / c2.sqrt() + self.eps)
        });
        smallvec![p, m, v]
    }

    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let types: Vec<_> = args.iter().map(|&a| b.ty(a).dtype).collect();
        let full = wide(types[0]);
        let [p, m, v, g] = [0, 1, 2, 3].map(|i| b.cast(args[i], full));
        let (lr, c1, c2) = (args[4], args[5], args[6]);
        let kept = b.scale(m, self.beta1);
        let new = b.scale(g, 1.0 - self.beta1);
        let m = b.add(kept, new);
        let kept = b.scale(v, self.beta2);
        let square = b.mul(g, g);
        let new = b.scale(square, 1.0 - self.beta2);
        let v = b.add(kept, new);
        let decay = b.scale(lr, -self.weight_decay);
        let decay = b.offset(decay, 1.0);
        let p = b.mul(p, decay);
        let root = b.op(Sqrt {}, &[v]);
        let correction = b.op(Sqrt {}, &[c2]);
        let root = b.div(root, correction);
        let root = b.offset(root, self.eps);
        let direction = b.div(m, root);
        let rate = b.div(lr, c1);
        let move_ = b.mul(rate, direction);
        let p = b.sub(p, move_);
        let mut results: NodeIds = smallvec![b.cast(p, types[0]), b.cast(m, types[1]), b.cast(v, types[2])];
        if let Some(&guard) = args.get(7) {
            let finite = Compare::finite(b, guard);
            for (new, &old) in results.iter_mut().zip(args) {
                *new = b.op(Select {}, &[finite, *new, old]);
            }
        }
        Some(results)
    }
}
