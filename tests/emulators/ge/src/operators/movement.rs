//! Concatenation and sums over dims.

use crate::Tensor;
use crate::proto::OpDef;
use crate::tensor::ravel;

use super::{each, out_shape};

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
    let shape = out_shape(op);
    let mut out = vec![start; shape.iter().product()];
    for (i, &v) in x.data.iter().enumerate() {
        let index = x.index(i);
        let kept: Vec<usize> = (0..index.len()).filter(|d| !axes.contains(&(*d as i64))).map(|d| index[d]).collect();
        let at = ravel(&shape, &kept);
        out[at] = f(out[at], v);
    }
    vec![out]
}
