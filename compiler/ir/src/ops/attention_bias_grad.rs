//! `attention_bias_grad`: the gradients of an attention's scores: with p = e^(s - lse), p (dout v^T - rowsum(dout out)).
//!
//! What a bias lacks is summed over behind it. Keys are whole on every rank, as the bias's are.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{Dim, Name, TensorType};

use super::attention::{Parts, View};
use super::attention_grad::Again;
use super::elementwise::FUNCTION;
use super::{Attention, Visibility};
use crate::factors::FactorKind;
use crate::op::{Class, NodeIds, PartContext, Semantics, Types, Vjp};
use crate::{Array, Builder, Factors, Mismatch, NodeId};

/// Operands as [`super::AttentionGrad`] has them; the result has the dims of the log-sum-exp, then that of the bias's keys, in
/// the log-sum-exp's type. Of pairs that do not see each other it is 0.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttentionBiasGrad {
    pub q_len: Name,
    pub kv_len: Name,
    pub heads: Name,
    pub kv_heads: Name,
    pub head: Name,
    pub causal: bool,
    pub scale: f64,
    #[serde(default, skip_serializing_if = "Visibility::is_plain")]
    pub visibility: Visibility,
    pub bias: Name,
}

impl AttentionBiasGrad {
    /// `bias`: the name of the dim along the keys.
    pub fn of(forward: &Attention, bias: Name) -> Self {
        let Attention { q_len, kv_len, heads, kv_heads, head, causal, scale, visibility, .. } = forward.clone();
        Self { q_len, kv_len, heads, kv_heads, head, causal, scale, visibility, bias }
    }

    pub fn forward(&self) -> Attention {
        let Self { q_len, kv_len, heads, kv_heads, head, causal, scale, visibility, bias } = self.clone();
        Attention { q_len, kv_len, heads, kv_heads, head, causal, scale, visibility, bias: Some(bias) }
    }

    fn result(&self, q: &TensorType, k: &TensorType) -> TensorType {
        let mut ty = self.forward().rows(q);
        ty.dims.push(Dim { name: self.bias.clone(), size: k.size_of(&self.kv_len).unwrap_or(1) });
        ty
    }
}

by_bits!(AttentionBiasGrad { q_len, kv_len, heads, kv_heads, head, causal, visibility, bias; scale });

impl Semantics for AttentionBiasGrad {
    const NAME: &'static str = "attention_bias_grad";
    const CLASS: Class = Class::Composite;

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        let own = [&mut self.q_len, &mut self.kv_len, &mut self.heads, &mut self.kv_heads, &mut self.head];
        own.into_iter().chain([&mut self.bias]).collect()
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        let forward = self.forward();
        let windowed = forward.parts_or_ids(args, 6, Self::NAME)?;
        forward.check(args[0], args[1], args[2], windowed)?;
        forward.check_rows(args, Self::NAME)?;
        Ok(smallvec![self.result(args[0], args[1])])
    }

    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        let forward = self.forward();
        let parts =
            Parts::new(&forward, args[0], args[1], [FactorKind::Parallel, FactorKind::Whole, FactorKind::Parallel]);
        let of = |(i, ty): (usize, &TensorType)| match i {
            1 | 2 => parts.of_kv(ty),
            6.. => forward.factors_of_operand(&parts, ty, i - 6),
            _ => parts.of_q(ty),
        };
        Factors {
            args: args.iter().copied().enumerate().map(of).collect(),
            results: results.iter().map(|ty| forward.factors_of_bias(&parts, ty)).collect(),
            factors: parts.factors.clone(),
        }
    }

    fn flops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        self.forward().multiplied(args[0], args[1]).saturating_mul(4)
    }

    fn matmul_flops(&self, args: &[&TensorType], results: &[TensorType]) -> u64 {
        self.flops(args, results)
    }

    /// Each score is scaled, biased, set off, made a weight, and its gradient set off and multiplied.
    fn vector_ops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        let scores = self.forward().scores(args[0], args[1]).saturating_mul(FUNCTION + 5);
        scores.saturating_add((args[0].elements() as u64).saturating_mul(2))
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.refuse(Self::NAME)
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let [q, k, v, out, lse, dout] = [0, 1, 2, 3, 4, 5].map(|i| args[i]);
        let mut ds = Array::zeros(results[0].clone());
        let keys = k.ty.size_of(&self.kv_len).unwrap_or(1);
        self.forward().each_row(&q.ty, &k.ty, &args[6..], |row| {
            let total: f64 = (0..row.width).map(|c| dout.data[row.q(c)] * out.data[row.q(c)]).sum();
            for (i, &j) in row.seen.iter().enumerate() {
                let score = self.scale * row.product(q, k, j) + row.added(i);
                if score != f64::NEG_INFINITY {
                    let p = libm::exp(score - lse.data[row.index]);
                    ds.data[row.index * keys + j] = p * (row.product(dout, v, j) - total);
                }
            }
        });
        smallvec![ds]
    }

    fn partition(&self, cx: &mut PartContext<'_>) -> Option<NodeIds> {
        let args = cx.args.to_vec();
        let (forward, all) = self.forward().part(cx, &args, [6, 7], args.get(6).copied(), false)?;
        Some(smallvec![cx.b.op(Self::of(&forward, self.bias.clone()), &all)])
    }

    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let (to, forward) = (self.result(b.ty(args[0]), b.ty(args[1])), self.forward());
        let view = View::new(&forward, b, args[0], args[1])?;
        let ds = Again::new(b, &view, args).of_scores(b, &view);
        Some(smallvec![b.reshape(ds, &to)])
    }
}
