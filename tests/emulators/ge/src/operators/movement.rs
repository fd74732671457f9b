//! Concatenation and sums over dims.

use crate::Tensor;
use crate::proto::OpDef;
use crate::tensor::ravel;

use super::{each, flag, out_shape};

pub fn concat(op: &OpDef, a: &[&Tensor]) -> Vec<Vec<f64>> {
    let (axis, parts) = a.split_last().expect("an axis");
    let axis = axis.data[0] as usize;
    each(op, |index| {
        let mut index = index.to_vec();
        for part in parts {
            if index[axis] < part.shape[axis] {
                return part.at(&index);
            }
            index[axis] -= part.shape[axis];
        }
        f64::NAN
    })
}

pub fn reduce(op: &OpDef, x: &Tensor, axes: &[i64], start: f64, f: impl Fn(f64, f64) -> f64) -> Vec<Vec<f64>> {
    let (shape, keep) = (out_shape(op), flag(op, "keep_dims"));
    let mut out = vec![start; shape.iter().product()];
    for (i, &v) in x.data.iter().enumerate() {
        let index = x.index(i);
        let gone = |d: &usize| axes.contains(&(*d as i64));
        // A dim that is kept has one place left.
        let kept = (0..index.len()).filter(|d| keep || !gone(d)).map(|d| if gone(&d) { 0 } else { index[d] });
        let kept: Vec<usize> = kept.collect();
        let at = ravel(&shape, &kept);
        out[at] = f(out[at], v);
    }
    vec![out]
}
