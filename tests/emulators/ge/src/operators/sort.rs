//! Sums along a dim, and the order of rows along the last one.

use crate::Tensor;
use crate::proto::OpDef;

use super::{each, flag, int};

pub fn cumsum(op: &OpDef, a: &[&Tensor]) -> Vec<Vec<f64>> {
    let axis = a[1].data[0] as usize;
    each(op, |index| {
        let own = index[axis];
        let (mut at, mut sum) = (index.to_vec(), 0.0);
        let all = if flag(op, "reverse") { own..a[0].shape[axis] } else { 0..own + 1 };
        for place in all.filter(|place| !flag(op, "exclusive") || *place != own) {
            at[axis] = place;
            sum += a[0].at(&at);
        }
        sum
    })
}

/// Sorted values and the places they come from. What is no number has no place here: CANN says nothing of it.
pub fn sort(op: &OpDef, x: &Tensor) -> Vec<Vec<f64>> {
    assert!(int(op, "axis") == -1 && flag(op, "stable"), "stable sorts of the last dim");
    let (mut values, mut places) = (vec![], vec![]);
    for row in x.rows() {
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|&i, &j| {
            let order = row[i].partial_cmp(&row[j]).expect("numbers");
            if flag(op, "descending") { order.reverse() } else { order }
        });
        values.extend(order.iter().map(|&i| row[i]));
        places.extend(order.iter().map(|&i| i as f64));
    }
    vec![values, places]
}
