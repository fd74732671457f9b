//! `select`: the second operand where the first holds, else the third; broadcast by name.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{DType, TensorType};

use super::elementwise::{arity, same_dtype, union};
use crate::op::{Class, Semantics, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Select {}

impl Semantics for Select {
    const NAME: &'static str = "select";
    const CLASS: Class = Class::Elementwise;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 3, Self::NAME)?;
        if args[0].dtype != DType::Bool {
            return Err(Mismatch::new(format!("`select` asks {}, not bool", args[0].dtype)).of([0]));
        }
        let dtype = same_dtype(&args[1..], Self::NAME)?[0].dtype;
        Ok(smallvec![TensorType { dtype, dims: union(args)? }])
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let (condition, g) = (cx.args[0], cx.cotangent());
        let zero = cx.b.constant(0.0, cx.b.ty(g).dtype);
        let mut branch = |first: NodeId, second: NodeId, arg: usize| {
            cx.wanted[arg].then(|| {
                let d = cx.b.op(Select {}, &[condition, first, second]);
                cx.sum_to(d, arg)
            })
        };
        smallvec![None, branch(g, zero, 1), branch(zero, g, 2)]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |x| if x[0] != 0.0 { x[1] } else { x[2] })]
    }
}
