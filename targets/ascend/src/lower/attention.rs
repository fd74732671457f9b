//! Attention and its gradient as FlashAttentionScore and FlashAttentionScoreGrad, in the layout BSND: batch, length, heads, width.
//!
//! CANN's forward gives each row's maximum and sum of exponentials, eight times over; ours gives the log of the whole
//! sum. The gradient takes the log as the maximum and 1 as the sum, which is the same softmax.

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
    let window = Window::new(cx, op, &site, 3);
    let (mask, sparse) = site.mask(cx, op, window.as_ref());
    let mut inputs = vec![None; Op::FlashAttentionScore.spec().inputs.len()];
    (inputs[0], inputs[1], inputs[2], inputs[6]) = (Some(q), Some(k), Some(v), mask);
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
        lse = cx.g.op(Op::SelectV2, &[window.empty, least, lse], &[]);
        let empty = cx.reshape(window.empty, &[site.queries, 1, 1]);
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
    let window = Window::new(cx, forward, &site, 6);
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

/// A part of a longer attention: how far a query sees, and how many keys are there.
struct Window {
    /// [queries, keys]: what is not seen.
    hidden: Tensor,
    /// [queries]: those that see no key at all.
    empty: Tensor,
}

impl Window {
    fn new(cx: &mut Cx<'_>, op: &Attention, site: &Site, first: usize) -> Option<Self> {
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
        })
    }
}
