//! Bias: numbers that are added to the scores of an attention before its softmax (T5's relative positions, ALiBi).
//!
//! A bias has any of the batch dims, the heads, the queries' length and, under a name of its own, the keys' length. Of a
//! part of the keys a rank takes a run of it: the bias itself is whole along the keys.

use smallvec::SmallVec;
use types::{Dim, Name, TensorType};

use super::attention::{Parts, View};
use super::{Attention, Window};
use crate::array::{dot, strides_in};
use crate::op::PartContext;
use crate::{Array, Builder, Mismatch, NodeId};

impl Attention {
    /// The number of operands between the first `count`, which must be there, and those that say who sees whom.
    pub fn biases(&self) -> usize {
        usize::from(self.bias.is_some())
    }

    /// That operand `at` can be added to the scores of operands 0 and 1.
    pub(super) fn check_bias(&self, args: &[&TensorType], at: usize, name: &str) -> Result<(), Mismatch> {
        let Some(key) = &self.bias else { return Ok(()) };
        let (Some(bias), Some(q), Some(k)) = (args.get(at), args.first(), args.get(1)) else {
            return Err(Mismatch::new(format!("`{name}` takes a bias as operand {at}, here are {}", args.len())));
        };
        if q.position(key).is_some() {
            return Err(Mismatch::new(format!("the keys of a bias cannot be called {key} like a dim of `{q}`"))
                .of([at])
                .help("give the bias's keys a name of their own"));
        }
        let fits = |d: &Dim| {
            let own = if d.name == *key { k.size_of(&self.kv_len) } else { q.size_of(&d.name) };
            d.name != self.head && own == Some(d.size)
        };
        if !bias.dtype.is_float() || !bias.dims.iter().all(fits) {
            return Err(Mismatch::new(format!(
                "operand {at} of `{name}` is `{bias}`, which is no bias of `{q}` to `{k}`"
            ))
            .of([at])
            .help(format!("it is a float with any of the batch dims, {}, {} and {key}", self.heads, self.q_len)));
        }
        Ok(())
    }

    /// Factors of the bias: along the keys it is whole.
    pub(super) fn factors_of_bias(&self, parts: &Parts<'_>, ty: &TensorType) -> Vec<SmallVec<[usize; 2]>> {
        let mut dims = parts.of_q(ty);
        for (of, dim) in dims.iter_mut().zip(&ty.dims) {
            if self.bias.as_ref() == Some(&dim.name) {
                of.clear();
            }
        }
        dims
    }

    /// The run of `bias` that belongs to the keys of one rank; `None` where that is all of it.
    pub(super) fn bias_part(&self, cx: &mut PartContext<'_>, bias: Option<NodeId>) -> Option<NodeId> {
        let (bias, dim, part) = (bias?, self.bias.clone()?, cx.cuts[Parts::KEY]?);
        cx.b.ty(bias).position(&dim)?;
        let size = cx.b.ty(cx.args[1]).size_of(&self.kv_len)?;
        Some(cx.b.op(Window { dim, size }, &[bias, part.start]))
    }

    /// Where a row of scores finds what is added to it.
    pub(super) fn bias_of<'a>(&self, bias: Option<&'a Array>, rows: &TensorType) -> Option<BiasRows<'a>> {
        let (bias, key) = (bias?, self.bias.as_ref()?);
        let step = bias.ty.position(key).map_or(0, |p| bias.ty.strides()[p]);
        Some(BiasRows { data: &bias.data, strides: strides_in(&bias.ty, rows).to_vec(), step })
    }
}

/// The numbers of a bias, by rows of scores.
pub(super) struct BiasRows<'a> {
    data: &'a [f64],
    strides: Vec<usize>,
    step: usize,
}

impl BiasRows<'_> {
    /// What is added for each of the keys `seen` in the row at `index`.
    pub fn row(&self, index: &[usize], seen: &[usize], to: &mut Vec<f64>) {
        let start = dot(index, &self.strides);
        to.clear();
        to.extend(seen.iter().map(|key| self.data[start + key * self.step]));
    }
}

impl View<'_> {
    /// `scores` with the bias added.
    pub fn add_bias(&self, b: &mut Builder, scores: NodeId, bias: NodeId) -> NodeId {
        let (of, all) = (self.of, b.ty(scores).clone());
        let ty = b.ty(bias).with_dtype(all.dtype);
        let bias = b.cast(bias, all.dtype);
        let split = |d: &Dim| -> Vec<Dim> {
            let renamed = |name: &Name| Dim { name: name.clone(), size: d.size };
            if of.bias.as_ref() == Some(&d.name) {
                vec![renamed(&self.key.name)]
            } else if d.name == of.heads {
                self.heads_of_scores()
            } else {
                vec![d.clone()]
            }
        };
        let renamed = TensorType::new(ty.dtype, ty.dims.iter().flat_map(split));
        let bias = b.reshape(bias, &renamed);
        let own = all.dims.iter().filter(|d| renamed.position(&d.name).is_some()).cloned();
        let bias = b.arrange(bias, &TensorType::new(ty.dtype, own));
        b.add(scores, bias)
    }
}
