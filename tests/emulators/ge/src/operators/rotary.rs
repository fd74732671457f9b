//! Rotary embedding.

use crate::Tensor;
use crate::proto::OpDef;

use super::{each, int};

/// x cos + rotated(x) sin, with (-second, first) for each pair.
pub fn rotary(op: &OpDef, a: &[&Tensor]) -> Vec<Vec<f64>> {
    let half = a[0].shape[3] / 2;
    each(op, |index| {
        let d = index[3];
        let (other, sign) = match int(op, "mode") {
            0 if d < half => (d + half, -1.0),
            0 => (d - half, 1.0),
            1 if d % 2 == 0 => (d + 1, -1.0),
            1 => (d - 1, 1.0),
            mode => panic!("mode {mode}"),
        };
        let rotated = sign * a[0].at(&[index[0], index[1], index[2], other]);
        a[0].at(index) * a[1].spread(index) + rotated * a[2].spread(index)
    })
}
