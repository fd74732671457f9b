//! Softmax and norms over rows, with their gradients.

use crate::Tensor;
use crate::proto::OpDef;
use crate::tensor::ravel;

use super::float;

pub fn mean(row: &[f64], f: impl Fn(f64) -> f64) -> f64 {
    row.iter().map(|&v| f(v)).sum::<f64>() / row.len() as f64
}

/// Inputs x, gamma; gives y and the factor of each row.
pub fn rms_norm(op: &OpDef, a: &[&Tensor]) -> Vec<Vec<f64>> {
    let rstd: Vec<f64> = a[0].rows().map(|r| 1.0 / (mean(r, |v| v * v) + float(op, "epsilon")).sqrt()).collect();
    let n = a[1].data.len();
    let y = (0..a[0].data.len()).map(|i| a[0].data[i] * rstd[i / n] * a[1].data[i % n]);
    vec![y.collect(), rstd]
}

/// Inputs x, and gamma and beta where they are fed; gives y, and mean and factor of each row.
pub fn layer_norm(op: &OpDef, x: &Tensor, gamma: Option<&Tensor>, beta: Option<&Tensor>) -> Vec<Vec<f64>> {
    let eps = float(op, "epsilon");
    let means: Vec<f64> = x.rows().map(|r| mean(r, |v| v)).collect();
    let rstd: Vec<f64> =
        x.rows().zip(&means).map(|(r, m)| 1.0 / (mean(r, |v| (v - m) * (v - m)) + eps).sqrt()).collect();
    let n = x.shape[x.shape.len() - 1];
    let y = (0..x.data.len()).map(|i| {
        let (scale, shift) = (gamma.map_or(1.0, |g| g.data[i % n]), beta.map_or(0.0, |b| b.data[i % n]));
        (x.data[i] - means[i / n]) * rstd[i / n] * scale + shift
    });
    vec![y.collect(), means, rstd]
}

/// For each element, its row along `axis` as positions in the data.
pub fn along(x: &Tensor, axis: i64, i: usize) -> Vec<usize> {
    let axis = if axis < 0 { x.shape.len() - 1 } else { axis as usize };
    let mut index = x.index(i);
    (0..x.shape[axis])
        .map(|k| {
            index[axis] = k;
            ravel(&x.shape, &index)
        })
        .collect()
}

pub fn softmax(x: &Tensor, axis: i64, f: impl Fn(f64, f64) -> f64) -> Vec<Vec<f64>> {
    let value = |i: usize| {
        let row = along(x, axis, i);
        let top = row.iter().map(|&j| x.data[j]).fold(f64::NEG_INFINITY, f64::max);
        f((x.data[i] - top).exp(), row.iter().map(|&j| (x.data[j] - top).exp()).sum())
    };
    vec![(0..x.data.len()).map(value).collect()]
}

pub fn softmax_grad(y: &Tensor, g: &Tensor, axis: i64) -> Vec<Vec<f64>> {
    let value = |i: usize| {
        let dot: f64 = along(y, axis, i).iter().map(|&j| y.data[j] * g.data[j]).sum();
        y.data[i] * (g.data[i] - dot)
    };
    vec![(0..y.data.len()).map(value).collect()]
}

/// Inputs dy, x, rstd, gamma.
pub fn rms_norm_grad(a: &[&Tensor]) -> Vec<Vec<f64>> {
    let (dy, x, rstd, gamma) = (a[0], a[1], a[2], a[3]);
    let n = gamma.data.len();
    let (mut dx, mut dgamma) = (vec![], vec![0.0; n]);
    for (r, (dy, x)) in dy.rows().zip(x.rows()).enumerate() {
        let s = rstd.data[r];
        let dot = (0..n).map(|i| dy[i] * gamma.data[i] * x[i] * s).sum::<f64>() / n as f64;
        dx.extend((0..n).map(|i| s * (dy[i] * gamma.data[i] - x[i] * s * dot)));
        (0..n).for_each(|i| dgamma[i] += dy[i] * x[i] * s);
    }
    vec![dx, dgamma]
}

/// Inputs dy, x, rstd, mean, gamma.
pub fn layer_norm_grad(a: &[&Tensor]) -> Vec<Vec<f64>> {
    let (dy, x, rstd, means, gamma) = (a[0], a[1], a[2], a[3], a[4]);
    let n = gamma.data.len();
    let (mut dx, mut dgamma, mut dbeta) = (vec![], vec![0.0; n], vec![0.0; n]);
    for (r, (dy, x)) in dy.rows().zip(x.rows()).enumerate() {
        let s = rstd.data[r];
        let hat: Vec<f64> = x.iter().map(|v| (v - means.data[r]) * s).collect();
        let g: Vec<f64> = (0..n).map(|i| dy[i] * gamma.data[i]).collect();
        let (flat, dot) = (mean(&g, |v| v), (0..n).map(|i| g[i] * hat[i]).sum::<f64>() / n as f64);
        dx.extend((0..n).map(|i| s * (g[i] - flat - hat[i] * dot)));
        (0..n).for_each(|i| dgamma[i] += dy[i] * hat[i]);
        (0..n).for_each(|i| dbeta[i] += dy[i]);
    }
    vec![dx, dgamma, dbeta]
}
