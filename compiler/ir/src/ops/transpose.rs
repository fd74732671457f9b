//! `transpose`: the dims in another order.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{Name, TensorType};

use super::elementwise::arity;
use crate::op::{Class, Semantics, TextForm, Told, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Transpose {
    /// All dims of the operand, in the new order.
    pub order: Vec<Name>,
}

impl Semantics for Transpose {
    const NAME: &'static str = "transpose";
    const CLASS: Class = Class::Move;
    const TEXT: TextForm = TextForm { first: "", told: &[("order", Told::Names)] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        self.order.iter_mut().collect()
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 1, Self::NAME)?;
        let mut ty = TensorType::scalar(args[0].dtype);
        for name in &self.order {
            let Some(p) = args[0].position(name) else {
                return Err(Mismatch::new(format!("`{}` has no dim {name}", args[0])).of([0]));
            };
            if ty.position(name).is_none() {
                ty.dims.push(args[0].dims[p].clone());
            }
        }
        if ty.rank() != args[0].rank() || ty.rank() != self.order.len() {
            return Err(Mismatch::new(format!("`{}` has other dims than the new order lists", args[0]))
                .of([0])
                .help("list each dim once"));
        }
        Ok(smallvec![ty])
    }

    fn flops(&self, _: &[&TensorType], _: &[TensorType]) -> u64 {
        0
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let (to, g) = (cx.b.ty(cx.args[0]).clone(), cx.cotangent());
        smallvec![Some(cx.b.arrange(g, &to))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::zip(&results[0], args, |x| x[0])]
    }
}
