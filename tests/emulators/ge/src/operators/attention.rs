//! FlashAttentionScore and its gradient, in the layout BSND.

use crate::Tensor;
use crate::proto::OpDef;
use crate::tensor::{ravel, unravel};

use super::{float, int};

/// Whether query i sees key j, for a mask of that sparse mode.
fn seen(op: &OpDef, mask: Option<&Tensor>, [b, i, j]: [usize; 3], queries: usize, keys: usize) -> bool {
    match (int(op, "sparse_mode"), mask) {
        (0, None) => true,
        (1, Some(mask)) if mask.shape.len() == 4 => mask.at(&[b, 0, i, j]) == 0.0,
        (1, Some(mask)) => mask.at(&[i, j]) == 0.0,
        // The triangle itself, read at its corner.
        (3, Some(mask)) => {
            assert_eq!((mask.at(&[0, 1]), mask.at(&[1, 0]), mask.at(&[1, 1])), (1.0, 0.0, 0.0));
            j + queries <= i + keys
        }
        (mode, _) => panic!("sparse mode {mode}"),
    }
}

/// Products of a row of queries with the keys that it sees, shifted and scaled, as (key, score).
fn scores(op: &OpDef, args: &[Option<&Tensor>], [shift, mask]: [usize; 2], [b, n, i]: [usize; 3]) -> Vec<(usize, f64)> {
    let (q, k) = (args[0].expect("q"), args[1].expect("k"));
    let kv = n / (q.shape[2] / k.shape[2]);
    let dot = |j| (0..q.shape[3]).map(|d| q.at(&[b, i, n, d]) * k.at(&[b, j, kv, d])).sum::<f64>();
    let [shift, mask] = [shift, mask].map(|at| args.get(at).copied().flatten());
    let shift = |j| shift.map_or(0.0, |x| x.at(&[if x.shape[0] == 1 { 0 } else { b }, n, i, j]));
    let visible = (0..k.shape[1]).filter(|&j| seen(op, mask, [b, i, j], q.shape[1], k.shape[1]));
    visible.map(|j| (j, float(op, "scale_value") * (dot(j) + shift(j)))).collect()
}

pub fn attention(op: &OpDef, args: &[Option<&Tensor>]) -> Vec<Vec<f64>> {
    let (q, k, v) = (args[0].expect("q"), args[1].expect("k"), args[2].expect("v"));
    let [batch, queries, heads, width] = <[usize; 4]>::try_from(q.shape.as_slice()).expect("BSND");
    let mut out = vec![0.0; q.data.len()];
    let (mut max, mut sum) = (vec![], vec![]);
    for at in (0..batch * heads * queries).map(|i| unravel(&[batch, heads, queries], i)) {
        let row = scores(op, args, [3, 6], [at[0], at[1], at[2]]);
        // What a row that sees nothing gives is not said.
        let top = row.iter().map(|s| s.1).fold(f64::NEG_INFINITY, f64::max);
        let total = if row.is_empty() { f64::NAN } else { row.iter().map(|s| (s.1 - top).exp()).sum::<f64>() };
        max.extend([top; 8]);
        sum.extend([total; 8]);
        let kv = at[1] / (heads / k.shape[2]);
        for d in 0..width {
            let weighed: f64 = row.iter().map(|&(j, s)| (s - top).exp() / total * v.at(&[at[0], j, kv, d])).sum();
            out[ravel(&q.shape, &[at[0], at[2], at[1], d])] = if row.is_empty() { f64::NAN } else { weighed };
        }
    }
    vec![max, sum, vec![], out]
}

pub fn attention_grad(op: &OpDef, args: &[Option<&Tensor>]) -> Vec<Vec<f64>> {
    let arg = |i: usize| args[i].expect("an input");
    let (q, k, v, dy, max, sum, out) = (arg(0), arg(1), arg(2), arg(3), arg(8), arg(9), arg(11));
    let [batch, queries, heads, width] = <[usize; 4]>::try_from(q.shape.as_slice()).expect("BSND");
    let scale = float(op, "scale_value");
    let [mut dq, mut dk, mut dv] = [q, k, v].map(|t| vec![0.0; t.data.len()]);
    for at in (0..batch * heads * queries).map(|i| unravel(&[batch, heads, queries], i)) {
        let [b, n, i] = [at[0], at[1], at[2]];
        let kv = n / (heads / k.shape[2]);
        let own = |d: usize| ravel(&q.shape, &[b, i, n, d]);
        let total: f64 = (0..width).map(|d| dy.data[own(d)] * out.data[own(d)]).sum();
        for (j, s) in scores(op, args, [4, 7], [b, n, i]) {
            let p = (s - max.at(&[b, n, i, 0])).exp() / sum.at(&[b, n, i, 0]);
            let key = |d: usize| ravel(&k.shape, &[b, j, kv, d]);
            let dp: f64 = (0..width).map(|d| dy.data[own(d)] * v.data[key(d)]).sum();
            let ds = scale * p * (dp - total);
            for d in 0..width {
                dq[own(d)] += ds * k.data[key(d)];
                dk[key(d)] += ds * q.data[own(d)];
                dv[key(d)] += p * dy.data[own(d)];
            }
        }
    }
    vec![dq, dk, dv, vec![]]
}
