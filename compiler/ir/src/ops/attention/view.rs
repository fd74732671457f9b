//! The tensors of attention as its expansion and those of its gradients see them.

use types::{DType, Dim, Name, TensorType};

use super::Attention;
use crate::ops::compare::Comparison;
use crate::ops::elementwise::wide;
use crate::ops::rope::fresh;
use crate::ops::{Compare, Exp, Iota, Matmul, Max, ReduceMax, Select};
use crate::{Builder, NodeId};

/// The expansion's view of its tensors: heads split into (kv heads, group), and a letter for each dim.
pub(in crate::ops) struct View<'a> {
    pub of: &'a Attention,
    split: TensorType,
    kv: TensorType,
    /// The dim of scores along the keys.
    pub key: Dim,
    q_letters: String,
    kv_letters: String,
    row_letters: String,
}

impl<'a> View<'a> {
    pub fn new(of: &'a Attention, b: &Builder, q: NodeId, k: NodeId) -> Option<Self> {
        let dtype = wide(b.ty(q).dtype);
        let (mut split, kv) = (b.ty(q).with_dtype(dtype), b.ty(k).with_dtype(dtype));
        let (heads, kv_heads) = (split.size_of(&of.heads)?, kv.size_of(&of.kv_heads)?);
        let key = Dim { name: fresh(&of.kv_len, &[&split]), size: kv.size_of(&of.kv_len)? };
        let group = fresh(&format!("{}.group", of.heads), &[&split, &kv]);
        let at = split.position(&of.heads)?;
        if heads != kv_heads {
            split.dims[at] = Dim { name: of.kv_heads.clone(), size: kv_heads };
            split.dims.insert(at + 1, Dim { name: group.clone(), size: heads / kv_heads });
        }
        let batch: Vec<&Name> = kv.dims.iter().map(|d| &d.name).collect();
        let letter = |name: &Name, len: &Name, c: char| {
            if name == len {
                Some(c)
            } else if *name == of.head {
                Some('d')
            } else if *name == of.heads || *name == of.kv_heads {
                Some('h')
            } else if *name == group {
                Some('g')
            } else {
                "klmnopqrstuvwxyz".chars().nth(batch.iter().position(|b| *b == name)?)
            }
        };
        let letters = |ty: &TensorType, len: &Name, c: char| -> Option<String> {
            ty.dims.iter().map(|d| letter(&d.name, len, c)).collect()
        };
        let (q_letters, kv_letters) = (letters(&split, &of.q_len, 'i')?, letters(&kv, &of.kv_len, 'j')?);
        let row_letters = q_letters.replace('d', "");
        Some(Self { of, split, kv, key, q_letters, kv_letters, row_letters })
    }

    /// The dims that the heads of q are in scores.
    pub fn heads_of_scores(&self) -> Vec<Dim> {
        let kv = self.kv.dims.iter().map(|d| &d.name);
        let own = [&self.of.q_len, &self.of.head];
        let others: Vec<&Name> = kv.filter(|n| **n != self.of.kv_heads).collect();
        self.split.dims.iter().filter(|d| !own.contains(&&d.name) && !others.contains(&&d.name)).cloned().collect()
    }

    /// A tensor laid out as q, wide and with its heads split.
    pub fn q(&self, b: &mut Builder, x: NodeId) -> NodeId {
        let x = b.cast(x, self.split.dtype);
        b.reshape(x, &self.split)
    }

    pub fn kv(&self, b: &mut Builder, x: NodeId) -> NodeId {
        b.cast(x, self.kv.dtype)
    }

    /// A tensor laid out as the log-sum-exp, with its heads split.
    pub fn row(&self, b: &mut Builder, x: NodeId) -> NodeId {
        b.reshape(x, &self.split.without(std::slice::from_ref(&self.of.head)))
    }

    /// For each row and key, the product of `x`, laid out as q, and `y`, laid out as k.
    pub fn scores(&self, b: &mut Builder, x: NodeId, y: NodeId) -> NodeId {
        let rows = self.split.without(std::slice::from_ref(&self.of.head));
        let dims = rows.dims.iter().chain([&self.key]).map(|d| d.name.clone()).collect();
        let spec = format!("{},{}->{}j", self.q_letters, self.kv_letters, self.row_letters);
        b.op(Matmul { spec, dims, dtype: None }, &[x, y])
    }

    /// The sum over keys of `weights` times `y`, laid out as k.
    pub fn weigh(&self, b: &mut Builder, weights: NodeId, y: NodeId) -> NodeId {
        let dims = self.split.dims.iter().map(|d| d.name.clone()).collect();
        let spec = format!("{}j,{}->{}", self.row_letters, self.kv_letters, self.q_letters);
        b.op(Matmul { spec, dims, dtype: None }, &[weights, y])
    }

    /// The sum over queries, and over the heads of a group, of `weights` times `x`, laid out as q.
    pub fn gather(&self, b: &mut Builder, weights: NodeId, x: NodeId) -> NodeId {
        let dims = self.kv.dims.iter().map(|d| d.name.clone()).collect();
        let spec = format!("{}j,{}->{}", self.row_letters, self.q_letters, self.kv_letters);
        b.op(Matmul { spec, dims, dtype: None }, &[weights, x])
    }

    /// As [`Softmax::parts`], but zeros for a row whose scores are all minus infinity.
    pub fn parts_or_none(&self, b: &mut Builder, scores: NodeId) -> (NodeId, NodeId, NodeId) {
        let dims = std::slice::from_ref(&self.key.name);
        let max = b.op(ReduceMax { dims: dims.to_vec() }, &[scores]);
        let least = b.constant(-1e30, self.split.dtype);
        let max = b.op(Max {}, &[max, least]);
        let shifted = b.sub(scores, max);
        let e = b.op(Exp {}, &[shifted]);
        (e, b.reduce_sum(e, dims), max)
    }

    /// `scores`, but `hidden` where a query does not see a key. `rest`: reach and number of keys, or the operands of the
    /// visibility.
    pub fn mask(&self, b: &mut Builder, scores: NodeId, rest: &[NodeId], hidden: f64) -> NodeId {
        if !self.of.visibility.is_plain() {
            let hidden = b.constant(hidden, self.split.dtype);
            let ty = b.ty(scores).clone();
            let seen = self.of.visible(b, &ty, &self.key, rest);
            return seen.map_or(scores, |seen| b.op(Select {}, &[seen, scores, hidden]));
        }
        let window = (!rest.is_empty()).then_some(rest);
        let dtype = if window.is_some() { DType::I64 } else { DType::I32 };
        let j = b.op(Iota { dim: self.key.clone(), dtype }, &[]);
        let hidden = b.constant(hidden, self.split.dtype);
        let mut scores = scores;
        if let Some(size) = self.split.size_of(&self.of.q_len).filter(|_| self.of.causal) {
            let query = Dim { name: self.of.q_len.clone(), size };
            let i = b.op(Iota { dim: query, dtype }, &[]);
            let last = match window {
                Some(window) => b.add(i, window[0]),
                None => b.offset(i, self.key.size.saturating_sub(size) as f64),
            };
            let seen = b.op(Compare { kind: Comparison::GreaterEqual }, &[last, j]);
            scores = b.op(Select {}, &[seen, scores, hidden]);
        }
        if let Some(window) = window {
            let there = b.op(Compare { kind: Comparison::Less }, &[j, window[1]]);
            scores = b.op(Select {}, &[there, scores, hidden]);
        }
        scores
    }
}
