//! Attention and its gradient as FlashAttentionScore and FlashAttentionScoreGrad, in the layout BSND: batch, length, heads, width.
//!
//! CANN's forward gives each row's maximum and sum of exponentials, eight times over; ours gives the log of the whole
//! sum. The gradient takes the log as the maximum and 1 as the sum, which is the same softmax.
//!
//! CANN scales the bias (`real_shift`, `pse_shift`) with the product it is added to, so it gets one that is divided by the
//! scale. What a row of a bias that is all -inf gives is not said.

use ir::ops::{Attention, AttentionGrad};
use types::{Name, TensorType};

use super::cx::Cx;
use crate::dtype::DataType;
use crate::graph::Tensor;
use crate::infer::Value;
use crate::table::Op;

/// Sides of the triangle that stands for a causal mask of any size (CANN's docs on `sparse_mode`).
const TRIANGLE: i64 = 2048;
/// CANN repeats each row's statistics, so that a row fills a block of 32 bytes.
const REPEATED: i64 = 8;
/// Less than any score, and far from overflow.
const LEAST: f64 = -1e30;

pub fn attention(cx: &mut Cx<'_>, op: &Attention) -> Vec<Tensor> {
    let site = Site::new(cx, op);
    let [q, k, v] = [site.q(cx, 0), site.kv(cx, 1), site.kv(cx, 2)];
    let window = Window::new(cx, op, &site, 3 + op.biases());
    let (mask, sparse) = site.mask(cx, op, window.as_ref());
    let mut inputs = vec![None; Op::FlashAttentionScore.spec().inputs.len()];
    (inputs[0], inputs[1], inputs[2], inputs[6]) = (Some(q), Some(k), Some(v), mask);
    inputs[3] = site.bias(cx, op, 3);
    let made = cx.g.node(Op::FlashAttentionScore, &inputs, &site.attributes(op, sparse), None);
    let (max, sum, mut out) = (made[0], made[1], made[3]);
    let rows = [site.batch, site.heads, site.queries];
    let [max, sum] = [max, sum].map(|x| {
        let one = cx.slice(x, &[0; 4], &[rows[0], rows[1], rows[2], 1]);
        cx.reshape(one, &rows)
    });
    let log = cx.g.op(Op::Log, &[sum], &[]);
    let mut lse = cx.g.op(Op::Add, &[max, log], &[]);
    if let Some(window) = &window {
        let least = cx.scalar(f64::NEG_INFINITY, DataType::Float);
        let batch = window.batch;
        let empty = cx.reshape(window.empty, &[batch, 1, site.queries]);
        lse = cx.g.op(Op::SelectV2, &[empty, least, lse], &[]);
        let empty = cx.reshape(window.empty, &[batch, site.queries, 1, 1]);
        let zero = cx.scalar(0.0, cx.dtype(out));
        out = cx.g.op(Op::SelectV2, &[empty, zero, out], &[]);
    }
    let out = site.back(cx, out, &site.q_order, cx.of(0));
    let lse = site.back(cx, lse, &site.row_order, cx.result(1));
    vec![out, lse]
}

pub fn attention_grad(cx: &mut Cx<'_>, op: &AttentionGrad) -> Vec<Tensor> {
    let forward = &op.forward();
    let site = Site::new(cx, forward);
    let window = Window::new(cx, forward, &site, 6 + forward.biases());
    let (mask, sparse) = site.mask(cx, forward, window.as_ref());
    let [q, k, v] = [site.q(cx, 0), site.kv(cx, 1), site.kv(cx, 2)];
    let [out, dout] = [site.q(cx, 3), site.q(cx, 5)];
    let mut lse = cx.transpose(cx.arg(4), &site.row_order);
    if window.is_some() {
        // A row that sees no key has minus infinity here, from which nothing can be taken away.
        let least = cx.scalar(LEAST, DataType::Float);
        lse = cx.g.op(Op::Maximum, &[lse, least], &[]);
    }
    let lse = cx.reshape(lse, &[site.batch, site.heads, site.queries, 1]);
    let rows = [site.batch, site.heads, site.queries, REPEATED];
    let max = cx.broadcast(lse, &rows);
    let sum = cx.fill(1.0, &rows, DataType::Float);
    let mut inputs = vec![None; Op::FlashAttentionScoreGrad.spec().inputs.len()];
    (inputs[0], inputs[1], inputs[2], inputs[3]) = (Some(q), Some(k), Some(v), Some(dout));
    inputs[4] = site.bias(cx, forward, 6);
    (inputs[7], inputs[8], inputs[9], inputs[11]) = (mask, Some(max), Some(sum), Some(out));
    let made = cx.g.node(Op::FlashAttentionScoreGrad, &inputs, &site.attributes(forward, sparse), None);
    vec![
        site.back(cx, made[0], &site.q_order, cx.of(0)),
        site.back(cx, made[1], &site.kv_order, cx.of(1)),
        site.back(cx, made[2], &site.kv_order, cx.of(1)),
    ]
}

/// How the operands lie, and how they are brought into BSND.
struct Site {
    batch: i64,
    queries: i64,
    keys: i64,
    heads: i64,
    kv_heads: i64,
    width: i64,
    /// Dims of q in the order of the layout, of k and v, and of rows as (batch, heads, length).
    q_order: Vec<usize>,
    kv_order: Vec<usize>,
    row_order: Vec<usize>,
}

impl Site {
    fn new(cx: &Cx<'_>, op: &Attention) -> Self {
        let (q, k) = (cx.of(0), cx.of(1));
        let own = [&op.q_len, &op.heads, &op.head];
        let others: Vec<&Name> = q.dims.iter().map(|d| &d.name).filter(|n| !own.contains(n)).collect();
        let order = |ty: &TensorType, last: &[&Name]| -> Vec<usize> {
            others.iter().chain(last).filter_map(|name| ty.position(name)).collect()
        };
        let rows = q.without(std::slice::from_ref(&op.head));
        let size = |ty: &TensorType, name: &Name| ty.size_of(name).unwrap_or(1) as i64;
        Self {
            batch: others.iter().map(|n| size(q, n)).product(),
            queries: size(q, &op.q_len),
            keys: size(k, &op.kv_len),
            heads: size(q, &op.heads),
            kv_heads: size(k, &op.kv_heads),
            width: size(q, &op.head),
            q_order: order(q, &own),
            kv_order: order(k, &[&op.kv_len, &op.kv_heads, &op.head]),
            row_order: order(&rows, &[&op.heads, &op.q_len]),
        }
    }

    /// The numbers of queries as [batch, queries, 1], or those of keys as [batch, 1, keys].
    fn side(&self, cx: &mut Cx<'_>, op: &Attention, i: usize, of_queries: bool) -> Tensor {
        let (own, length) = (cx.of(i), if of_queries { &op.q_len } else { &op.kv_len });
        let batch = self
            .q_order
            .iter()
            .map(|&p| &cx.of(0).dims[p])
            .filter(|d| ![&op.q_len, &op.heads, &op.head].contains(&&d.name));
        let size = own.size_of(length).unwrap_or(1) as i64;
        let order: Vec<usize> =
            batch.clone().map(|d| &d.name).chain([length]).filter_map(|name| own.position(name)).collect();
        let there: Vec<i64> =
            batch.clone().map(|d| own.size_of(&d.name).map_or(1, |s| s as i64)).chain([size]).collect();
        let full: Vec<i64> = batch.map(|d| d.size as i64).chain([size]).collect();
        let x = cx.transpose(cx.arg(i), &order);
        let x = cx.reshape(x, &there);
        let x = cx.broadcast(x, &full);
        cx.reshape(x, &if of_queries { [self.batch, size, 1] } else { [self.batch, 1, size] })
    }

    /// Operand `i` as [batch or 1, heads, queries, keys], divided by the scale.
    fn bias(&self, cx: &mut Cx<'_>, op: &Attention, i: usize) -> Option<Tensor> {
        let key = op.bias.as_ref()?;
        let (own, q) = (cx.of(i), cx.of(0));
        let last = [&op.heads, &op.q_len, key];
        let batch: Vec<_> = self
            .q_order
            .iter()
            .map(|&p| &q.dims[p])
            .filter(|d| !last.contains(&&d.name) && d.name != op.head)
            .collect();
        let batched = batch.iter().any(|d| own.position(&d.name).is_some());
        let of_batch = batch.iter().filter(|_| batched).map(|d| (&d.name, d.size as i64));
        let of_scores = last.into_iter().zip([self.heads, self.queries, self.keys]);
        let all: Vec<(&Name, i64)> = of_batch.chain(of_scores).collect();
        let order: Vec<usize> = all.iter().filter_map(|(name, _)| own.position(name)).collect();
        let there: Vec<i64> = all.iter().map(|(name, _)| own.size_of(name).map_or(1, |size| size as i64)).collect();
        let full: Vec<i64> = all.iter().map(|(_, size)| *size).collect();
        let x = cx.transpose(cx.arg(i), &order);
        let x = cx.reshape(x, &there);
        let x = cx.broadcast(x, &full);
        let x = cx.reshape(x, &[if batched { self.batch } else { 1 }, self.heads, self.queries, self.keys]);
        if op.scale == 1.0 {
            return Some(x);
        }
        let inverse = cx.scalar(1.0 / op.scale, cx.dtype(x));
        Some(cx.g.op(Op::Mul, &[x, inverse], &[]))
    }

    fn q(&self, cx: &mut Cx<'_>, i: usize) -> Tensor {
        let x = cx.transpose(cx.arg(i), &self.q_order);
        cx.reshape(x, &[self.batch, self.queries, self.heads, self.width])
    }

    fn kv(&self, cx: &mut Cx<'_>, i: usize) -> Tensor {
        let x = cx.transpose(cx.arg(i), &self.kv_order);
        cx.reshape(x, &[self.batch, self.keys, self.kv_heads, self.width])
    }

    /// A tensor of the layout under the dims of `ty`, which `order` brought into it.
    fn back(&self, cx: &mut Cx<'_>, x: Tensor, order: &[usize], ty: &TensorType) -> Tensor {
        let ordered: Vec<i64> = order.iter().map(|&i| ty.dims[i].size as i64).collect();
        let x = cx.reshape(x, &ordered);
        let inverse: Vec<usize> = (0..order.len()).filter_map(|i| order.iter().position(|&o| o == i)).collect();
        cx.transpose(x, &inverse)
    }

    fn attributes(&self, op: &Attention, sparse: i64) -> Vec<(&'static str, Value)> {
        let all = i64::from(i32::MAX);
        vec![
            ("scale_value", Value::Float(op.scale as f32)),
            ("pre_tockens", Value::Int(all)),
            ("next_tockens", Value::Int(all)),
            ("head_num", Value::Int(self.heads)),
            ("input_layout", Value::Text("BSND".into())),
            ("sparse_mode", Value::Int(sparse)),
        ]
    }

    /// What queries do not see, and the sparse mode that reads it: 0 for no mask, 1 for a whole one, 3 for the triangle
    /// that ends at the last query and the last key.
    fn mask(&self, cx: &mut Cx<'_>, op: &Attention, window: Option<&Window>) -> (Option<Tensor>, i64) {
        match window {
            Some(window) => (Some(window.hidden), 1),
            None if op.causal => {
                let known = cx.triangle;
                let triangle = known.unwrap_or_else(|| {
                    let numbers = cx.count_up(TRIANGLE);
                    let (i, j) = (cx.reshape(numbers, &[TRIANGLE, 1]), cx.reshape(numbers, &[1, TRIANGLE]));
                    cx.g.op(Op::Greater, &[j, i], &[])
                });
                cx.triangle = Some(triangle);
                (Some(triangle), 3)
            }
            None => (None, 0),
        }
    }
}

/// What queries do not see: of a part of a longer attention how far a query sees and how many keys are there, or what the
/// numbers of queries and keys hide.
struct Window {
    /// [queries, keys], or [batch, 1, queries, keys]: what is not seen.
    hidden: Tensor,
    /// [batch, queries]: those that see no key at all.
    empty: Tensor,
    /// 1 where all samples see alike.
    batch: i64,
}

impl Window {
    fn new(cx: &mut Cx<'_>, op: &Attention, site: &Site, first: usize) -> Option<Self> {
        if !op.visibility.is_plain() {
            return Some(Self::by_ids(cx, op, site, first));
        }
        if cx.count() <= first {
            return None;
        }
        let (reach, there) = (cx.arg(first), cx.arg(first + 1));
        let j = cx.count_up(site.keys);
        let j = cx.reshape(j, &[1, site.keys]);
        let one = cx.g.int(1);
        let mut hidden = cx.g.op(Op::GreaterEqual, &[j, there], &[]);
        let mut last = cx.g.op(Op::Sub, &[there, one], &[]);
        if op.causal {
            let i = cx.count_up(site.queries);
            let far = cx.g.op(Op::Add, &[i, reach], &[]);
            let column = cx.reshape(far, &[site.queries, 1]);
            let beyond = cx.g.op(Op::Greater, &[j, column], &[]);
            hidden = cx.g.op(Op::LogicalOr, &[beyond, hidden], &[]);
            last = cx.g.op(Op::Minimum, &[far, last], &[]);
        }
        let zero = cx.g.int(0);
        let empty = cx.g.op(Op::Less, &[last, zero], &[]);
        let empty = if op.causal { empty } else { cx.reshape(empty, &[1]) };
        Some(Self {
            hidden: cx.broadcast(hidden, &[site.queries, site.keys]),
            empty: cx.broadcast(empty, &[site.queries]),
            batch: 1,
        })
    }

    fn by_ids(cx: &mut Cx<'_>, op: &Attention, site: &Site, first: usize) -> Self {
        let numbers: Vec<usize> = (first..cx.count()).collect();
        let [segments, positions] = op.visibility.split(&numbers);
        let sides =
            |cx: &mut Cx<'_>, pair: [usize; 2]| [site.side(cx, op, pair[0], true), site.side(cx, op, pair[1], false)];
        let mut hidden: Vec<Tensor> = vec![];
        if let Some(pair) = segments {
            let [of_q, of_k] = sides(cx, pair);
            let zero = cx.g.int(0);
            hidden.push(cx.g.op(Op::NotEqual, &[of_q, of_k], &[]));
            hidden.push(cx.g.op(Op::LessEqual, &[of_k, zero], &[]));
        }
        let [left, right] = op.reach();
        if left.or(right).is_some() {
            let [of_q, of_k] = positions.map(|pair| sides(cx, pair)).unwrap_or_else(|| {
                let (i, offset) = (cx.count_up(site.queries), cx.g.int(site.keys - site.queries));
                let i = cx.g.op(Op::Add, &[i, offset], &[]);
                let j = cx.count_up(site.keys);
                [cx.reshape(i, &[1, site.queries, 1]), cx.reshape(j, &[1, 1, site.keys])]
            });
            for (bound, sign, beyond) in [(left, -1, Op::Less), (right, 1, Op::Greater)] {
                let Some(bound) = bound else { continue };
                let bound = cx.g.int(sign * bound);
                let limit = cx.g.op(Op::Add, &[of_q, bound], &[]);
                hidden.push(cx.g.op(beyond, &[of_k, limit], &[]));
            }
        }
        let all = hidden.into_iter().reduce(|a, b| cx.g.op(Op::LogicalOr, &[a, b], &[]));
        let hidden = all.unwrap_or_else(|| cx.scalar(0.0, DataType::Bool));
        let hidden = cx.broadcast(hidden, &[site.batch, site.queries, site.keys]);
        let number = cx.cast(hidden, DataType::Float);
        let one = cx.scalar(1.0, DataType::Float);
        let seen = cx.g.op(Op::Sub, &[one, number], &[]);
        let axes = cx.g.ints(&[2]);
        let most = cx.g.op(Op::ReduceMax, &[seen, axes], &[]);
        let zero = cx.scalar(0.0, DataType::Float);
        let empty = cx.g.op(Op::Equal, &[most, zero], &[]);
        Self { hidden: cx.reshape(hidden, &[site.batch, 1, site.queries, site.keys]), empty, batch: site.batch }
    }
}
