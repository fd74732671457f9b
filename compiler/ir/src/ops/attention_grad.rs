//! `attention_grad`: the gradients of `attention` by q, k and v, from the log-sum-exp (Dao, 2023, FlashAttention-2).
//!
//! With p = e^(s - lse), D = rowsum(dout out) and ds = scale p (dout v^T - D): dq = ds k, dk = ds^T q, dv = p^T dout.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{Name, TensorType};

use super::attention::{Parts, View};
use super::elementwise::{FUNCTION, wide};
use super::{Attention, Exp, Max, Visibility};
use crate::factors::FactorKind;
use crate::op::{Class, NodeIds, PartContext, Semantics, Types, Vjp};
use crate::{Array, Builder, Factors, Mismatch, NodeId};

/// Operands q, k, v, out, lse, dout; results dq, dk, dv. Dims, and all further operands, as in [`Attention`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttentionGrad {
    pub q_len: Name,
    pub kv_len: Name,
    pub heads: Name,
    pub kv_heads: Name,
    pub head: Name,
    pub causal: bool,
    pub scale: f64,
    #[serde(default, skip_serializing_if = "Visibility::is_plain")]
    pub visibility: Visibility,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias: Option<Name>,
}

impl AttentionGrad {
    pub fn of(forward: &Attention) -> Self {
        let Attention { q_len, kv_len, heads, kv_heads, head, causal, scale, visibility, bias } = forward.clone();
        Self { q_len, kv_len, heads, kv_heads, head, causal, scale, visibility, bias }
    }

    pub fn forward(&self) -> Attention {
        let Self { q_len, kv_len, heads, kv_heads, head, causal, scale, visibility, bias } = self.clone();
        Attention { q_len, kv_len, heads, kv_heads, head, causal, scale, visibility, bias }
    }
}

by_bits!(AttentionGrad { q_len, kv_len, heads, kv_heads, head, causal, visibility, bias; scale });

impl Semantics for AttentionGrad {
    const NAME: &'static str = "attention_grad";
    const CLASS: Class = Class::Composite;

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        let own = [&mut self.q_len, &mut self.kv_len, &mut self.heads, &mut self.kv_heads, &mut self.head];
        own.into_iter().chain(&mut self.bias).collect()
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        let forward = self.forward();
        let windowed = forward.parts_or_ids(args, 6, Self::NAME)?;
        let (q, k) = (args[0], args[1]);
        forward.check(q, k, args[2], windowed)?;
        forward.check_rows(args, Self::NAME)?;
        Ok(smallvec![q.clone(), k.clone(), k.clone()])
    }

    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        let forward = self.forward();
        // Gradients of keys and values are sums over queries and over the heads of a group.
        let parts = Parts::new(&forward, args[0], args[1], [FactorKind::Sum, FactorKind::Merge, FactorKind::Sum]);
        let of = |(i, ty): (usize, &TensorType)| match i {
            1 | 2 => parts.of_kv(ty),
            6.. => forward.factors_of_operand(&parts, ty, i - 6),
            _ => parts.of_q(ty),
        };
        Factors {
            args: args.iter().copied().enumerate().map(of).collect(),
            results: results.iter().enumerate().map(of).collect(),
            factors: parts.factors.clone(),
        }
    }

    fn flops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        self.forward().multiplied(args[0], args[1]).saturating_mul(10)
    }

    fn matmul_flops(&self, args: &[&TensorType], results: &[TensorType]) -> u64 {
        self.flops(args, results)
    }

    /// Each score is scaled, set off, made a weight, its gradient set off and multiplied twice, and both cast; each row
    /// of results is summed with its cotangent.
    fn vector_ops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        let scores = self.forward().scores(args[0], args[1]).saturating_mul(FUNCTION + 7);
        scores.saturating_add((args[0].elements() as u64).saturating_mul(2))
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.refuse(Self::NAME)
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let [q, k, v, out, lse, dout] = [0, 1, 2, 3, 4, 5].map(|i| args[i]);
        let [mut dq, mut dk, mut dv] = [0, 1, 2].map(|i| Array::zeros(results[i].clone()));
        self.forward().each_row(&q.ty, &k.ty, &args[6..], |row| {
            let total: f64 = (0..row.width).map(|c| dout.data[row.q(c)] * out.data[row.q(c)]).sum();
            for (i, &j) in row.seen.iter().enumerate() {
                let score = self.scale * row.product(q, k, j) + row.added(i);
                if score == f64::NEG_INFINITY {
                    continue;
                }
                let p = libm::exp(score - lse.data[row.index]);
                let ds = self.scale * p * (row.product(dout, v, j) - total);
                for c in 0..row.width {
                    let (at, kv) = (row.q(c), row.kv(j, c));
                    dq.data[at] += ds * k.data[kv];
                    dk.data[kv] += ds * q.data[at];
                    dv.data[kv] += p * dout.data[at];
                }
            }
        });
        smallvec![dq, dk, dv]
    }

    /// Queries that are not there count as zeros, keys that are not there are beyond the window.
    fn partition(&self, cx: &mut PartContext<'_>) -> Option<NodeIds> {
        // Queries that are not there are of segment 0, or zeros.
        let (forward, m) = (self.forward(), cx.masked);
        let args = [&[m[0], cx.args[1], cx.args[2], m[3], m[4], m[5]], &m[6..]].concat();
        let own = args[6..].iter().take(forward.biases()).copied().next();
        let part = forward.bias_part(cx, own);
        let (forward, all) = forward.part(cx, &args, [6, 6 + forward.biases()], part.or(own), part.is_some())?;
        let all = cx.b.op(Self::of(&forward), &all);
        Some(cx.b.results(all))
    }

    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let (q_type, kv_type, forward) = (b.ty(args[0]).clone(), b.ty(args[1]).clone(), self.forward());
        let view = View::new(&forward, b, args[0], args[1])?;
        let again = Again::new(b, &view, args);
        let dv = view.gather(b, again.p, again.dout);
        let ds = again.of_scores(b, &view);
        let ds = b.scale(ds, self.scale);
        let (q, k) = (again.q, again.k);
        let dq = view.weigh(b, ds, k);
        let dq = b.reshape(dq, &q_type.with_dtype(wide(q_type.dtype)));
        let dk = view.gather(b, ds, q);
        Some(smallvec![b.cast(dq, q_type.dtype), b.cast(dk, kv_type.dtype), b.cast(dv, kv_type.dtype)])
    }
}

impl Attention {
    /// That operands 3 to 5 of a gradient are the result, the log-sum-exp and the cotangent of such an attention.
    pub(super) fn check_rows(&self, args: &[&TensorType], name: &str) -> Result<(), Mismatch> {
        let q = args[0];
        let expected = [(3, q.clone()), (4, self.rows(q)), (5, q.clone())];
        match expected.iter().find(|(i, ty)| args[*i] != ty) {
            Some((i, ty)) => Err(Mismatch::new(format!("operand {i} of `{name}` is `{}`, not `{ty}`", args[*i])).of([*i])),
            None => Ok(()),
        }
    }
}

/// An attention computed again from the operands of its gradient, in the dims of a view.
pub(super) struct Again {
    q: NodeId,
    k: NodeId,
    v: NodeId,
    out: NodeId,
    dout: NodeId,
    /// The weights of all scores.
    p: NodeId,
}

impl Again {
    pub fn new(b: &mut Builder, view: &View<'_>, args: &[NodeId]) -> Self {
        let (bias, rest) = args[6..].split_at(view.of.biases());
        let (q, k, v) = (view.q(b, args[0]), view.kv(b, args[1]), view.kv(b, args[2]));
        let (out, dout) = (view.q(b, args[3]), view.q(b, args[5]));
        let mut lse = view.row(b, args[4]);
        let scores = view.scores(b, q, k);
        let mut scores = b.scale(scores, view.of.scale);
        if let [bias] = *bias {
            scores = view.add_bias(b, scores, bias);
            // A row of -inf stays one.
            let least = b.constant(-1e30, b.ty(lse).dtype);
            lse = b.op(Max {}, &[lse, least]);
        }
        let exponent = b.sub(scores, lse);
        let exponent = view.mask(b, exponent, rest, f64::NEG_INFINITY);
        let p = b.op(Exp {}, &[exponent]);
        Self { q, k, v, out, dout, p }
    }

    /// The gradients of the scores, before they are scaled.
    pub fn of_scores(&self, b: &mut Builder, view: &View<'_>) -> NodeId {
        let dp = view.scores(b, self.dout, self.v);
        let product = b.mul(self.dout, self.out);
        let total = b.reduce_sum(product, std::slice::from_ref(&view.of.head));
        let centred = b.sub(dp, total);
        b.mul(self.p, centred)
    }
}
