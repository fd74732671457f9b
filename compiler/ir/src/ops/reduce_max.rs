//! `reduce_max`: the largest element over the dims named; NaN if one of them is.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{Name, TensorType};

use super::compare::Comparison;
use super::elementwise::arity;
use super::{Compare, Select};
use crate::factors::FactorKind;
use crate::op::{Class, Semantics, TextForm, Types, Vjp};
use crate::{Array, Factors, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReduceMax {
    pub dims: Vec<Name>,
}

impl Semantics for ReduceMax {
    const NAME: &'static str = "reduce_max";
    const CLASS: Class = Class::Reduce;
    const TEXT: TextForm = TextForm { first: "dims", told: &[] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        self.dims.iter_mut().collect()
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 1, Self::NAME)?;
        if let Some(name) = self.dims.iter().find(|n| args[0].position(n).is_none()) {
            return Err(Mismatch::new(format!("`{}` has no dim {name} to take the maximum over", args[0])).of([0]));
        }
        Ok(smallvec![args[0].without(&self.dims)])
    }

    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        let names: Vec<&Name> = self.dims.iter().collect();
        Factors::by_name(args, results).mark(&names, FactorKind::Max)
    }

    fn flops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        args[0].elements() as u64
    }

    /// Elements that equal the maximum share its gradient, as with amax in PyTorch.
    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let (x, y, g) = (cx.args[0], cx.results[0], cx.cotangent());
        let dtype = cx.b.ty(x).dtype;
        let equal = cx.b.op(Compare { kind: Comparison::Equal }, &[x, y]);
        let one = cx.b.constant(1.0, dtype);
        let zero = cx.b.constant(0.0, dtype);
        let ones = cx.b.op(Select {}, &[equal, one, zero]);
        let count = cx.b.reduce_sum(ones, &self.dims);
        let share = cx.b.div(g, count);
        smallvec![Some(cx.b.op(Select {}, &[equal, share, zero]))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![args[0].fold(&results[0], f64::NEG_INFINITY, |a, b| if a.is_nan() || a > b { a } else { b })]
    }
}
