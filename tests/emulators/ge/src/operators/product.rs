//! Matrix products.

use crate::Tensor;

/// Over the last two dims of each, which `turn` swaps; the dims before them are the same.
pub fn product(a: &Tensor, b: &Tensor, turn_a: bool, turn_b: bool) -> Vec<Vec<f64>> {
    let matrix = |x: &Tensor, turn: bool| {
        let [rows, columns] = *x.shape.last_chunk::<2>().expect("a matrix");
        if turn { ([columns, rows], [1, columns]) } else { ([rows, columns], [columns, 1]) }
    };
    let (([m, k], [a_row, a_column]), ([l, n], [b_row, b_column])) = (matrix(a, turn_a), matrix(b, turn_b));
    assert_eq!((k, &a.shape[..a.shape.len() - 2]), (l, &b.shape[..b.shape.len() - 2]), "factors that fit");
    let batch: usize = a.shape[..a.shape.len() - 2].iter().product();
    let mut out = vec![0.0; batch * m * n];
    for (p, out) in out.chunks_mut((m * n).max(1)).enumerate() {
        let (a, b) = (&a.data[p * m * k..], &b.data[p * k * n..]);
        for (i, row) in out.chunks_mut(n.max(1)).enumerate() {
            for l in 0..k {
                let left = a[i * a_row + l * a_column];
                row.iter_mut().enumerate().for_each(|(j, out)| *out += left * b[l * b_row + j * b_column]);
            }
        }
    }
    vec![out]
}
