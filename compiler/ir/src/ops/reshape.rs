//! `reshape`: the same elements in the same order under other dims; splits, merges and renames.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{Dim, Name, TensorType};

use super::elementwise::{arity, distinct};
use crate::factors::{Factor, FactorKind};
use crate::op::{Class, Semantics, TextForm, Told, Types, Vjp};
use crate::{Array, Factors, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reshape {
    pub dims: Vec<Dim>,
}

impl Semantics for Reshape {
    const NAME: &'static str = "reshape";
    const CLASS: Class = Class::View;
    const TEXT: TextForm = TextForm { first: "", told: &[("dims", Told::Dims)] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        self.dims.iter_mut().map(|dim| &mut dim.name).collect()
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 1, Self::NAME)?;
        let ty = distinct(TensorType::new(args[0].dtype, self.dims.iter().cloned()))?;
        if ty.elements() != args[0].elements() {
            return Err(Mismatch::new(format!(
                "`{}` has {} elements and `{ty}` has {}",
                args[0],
                args[0].elements(),
                ty.elements()
            ))
            .of([0]));
        }
        Ok(smallvec![ty])
    }

    /// Walks both lists of dims from the left: where the running products meet, a group of dims ends. In a group of
    /// one dim against several, each of the several is a factor; any other group must be whole.
    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        let (from, to) = (&args[0].dims, &results[0].dims);
        let mut out = Factors {
            factors: vec![],
            args: vec![vec![SmallVec::new(); from.len()]],
            results: vec![vec![SmallVec::new(); to.len()]],
        };
        let (mut i, mut j) = (0, 0);
        while i < from.len() && j < to.len() {
            let (i0, j0) = (i, j);
            let (mut a, mut b) = (from[i].size, to[j].size);
            (i, j) = (i + 1, j + 1);
            while a != b {
                if a < b && i < from.len() {
                    a = a.saturating_mul(from[i].size);
                    i += 1;
                } else if a > b && j < to.len() {
                    b = b.saturating_mul(to[j].size);
                    j += 1;
                } else {
                    break;
                }
            }
            let mut factor = |dim: &Dim| {
                out.factors.push(Factor { name: dim.name.clone(), size: dim.size, kind: FactorKind::Parallel });
                out.factors.len() - 1
            };
            match (i - i0, j - j0) {
                (1, _) => {
                    for k in j0..j {
                        let f = factor(&to[k]);
                        out.results[0][k].push(f);
                        out.args[0][i0].push(f);
                    }
                }
                (_, 1) => {
                    for k in i0..i {
                        let f = factor(&from[k]);
                        out.args[0][k].push(f);
                        out.results[0][j0].push(f);
                    }
                }
                _ => {}
            }
        }
        out
    }

    fn localize(&self, results: &[TensorType]) -> Self {
        Self { dims: results[0].dims.to_vec() }
    }

    fn flops(&self, _: &[&TensorType], _: &[TensorType]) -> u64 {
        0
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let (to, g) = (cx.b.ty(cx.args[0]).clone(), cx.cotangent());
        smallvec![Some(cx.b.reshape(g, &to))]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::new(results[0].clone(), args[0].data.clone())]
    }
}
