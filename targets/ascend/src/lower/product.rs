//! Products: an einsum of two operands as MatMulV3, or as BatchMatMulV3 where dims run through all three tensors, or where the
//! result is wider than the operands: MatMulV3 gives bf16 from bf16 alone.

use ir::ops::Matmul;
use types::TensorType;

use super::cx::{Cx, sizes};
use crate::dtype::DataType;
use crate::graph::Tensor;
use crate::infer::Value;
use crate::table::Op;

/// A product of half precision may be f32: it is kept so in the cube unit, and rounds once.
pub fn matmul(cx: &mut Cx<'_>, op: &Matmul) -> Vec<Tensor> {
    let Some(letters) = op.letters() else {
        cx.g.fail(format!("`{}` is no product", op.spec));
        return vec![];
    };
    let (l, r, out) = (letters.lhs, letters.rhs, letters.out);
    let pick = |from: &[u8], f: &dyn Fn(u8) -> bool| -> Vec<u8> { from.iter().copied().filter(|&c| f(c)).collect() };
    let batch = pick(out, &|c| l.contains(&c) && r.contains(&c));
    let rows = pick(out, &|c| l.contains(&c) && !r.contains(&c));
    let columns = pick(out, &|c| !l.contains(&c) && r.contains(&c));
    let summed = pick(l, &|c| !out.contains(&c));
    let size = |letters: &[u8]| -> i64 {
        letters.iter().map(|c| size_of(*c, l, cx.of(0)).or(size_of(*c, r, cx.of(1))).unwrap_or(1)).product()
    };
    let (b, m, n, k) = (size(&batch), size(&rows), size(&columns), size(&summed));
    let to = cx.result(0);
    let dtype = DataType::of(to.dtype).unwrap_or(DataType::Undefined);
    let operands = cx.dtype(cx.arg(0));
    let declared = if dtype == DataType::Float { dtype } else { operands };
    let batched = b != 1 || declared != operands;
    let left = Matrix::new(cx, 0, l, [&batch, &rows, &summed], [b, m, k], batched);
    let right = Matrix::new(cx, 1, r, [&batch, &columns, &summed], [b, n, k], batched);
    // The result's dims in the order in which the product has them, or turned about.
    let turned = [&batch[..], &columns, &rows].concat() == out && !(rows.is_empty() || columns.is_empty());
    let (first, second, made) = if turned {
        (right, left, [&batch[..], &columns, &rows])
    } else {
        (left, right, [&batch[..], &rows, &columns])
    };
    let (kind, flags) = match batched {
        false => (Op::MatMulV3, ["transpose_x1", "transpose_x2"]),
        true => (Op::BatchMatMulV3, ["adj_x1", "adj_x2"]),
    };
    // Each matrix holds [rows, summed], or [summed, rows] if it is turned; the second is wanted as [summed, columns].
    let attributes = [(flags[0], Value::Bool(first.turned)), (flags[1], Value::Bool(!second.turned))];
    let inputs = [Some(first.tensor), Some(second.tensor)];
    let y = cx.g.node(kind, &inputs, &attributes, Some(declared))[0];
    let made = made.concat();
    let sizes_made: Vec<i64> =
        made.iter().map(|c| out.iter().position(|o| o == c).map_or(1, |p| to.dims[p].size as i64)).collect();
    let y = cx.reshape(y, &sizes_made);
    let order: Vec<usize> = out.iter().filter_map(|c| made.iter().position(|m| m == c)).collect();
    let y = cx.transpose(y, &order);
    vec![cx.cast(y, dtype)]
}

fn size_of(letter: u8, letters: &[u8], ty: &TensorType) -> Option<i64> {
    letters.iter().position(|l| *l == letter).map(|p| ty.dims[p].size as i64)
}

/// An operand as a matrix, or as a batch of them.
struct Matrix {
    tensor: Tensor,
    /// Summed dims come first.
    turned: bool,
}

impl Matrix {
    fn new(cx: &mut Cx<'_>, arg: usize, letters: &[u8], parts: [&Vec<u8>; 3], counts: [i64; 3], batched: bool) -> Self {
        let [batch, own, summed] = parts;
        let straight = [&batch[..], own, summed].concat();
        let turned = letters == [&batch[..], summed, own].concat() && letters != straight;
        let order: Vec<usize> = straight.iter().filter_map(|c| letters.iter().position(|l| l == c)).collect();
        let x = if turned { cx.arg(arg) } else { cx.transpose(cx.arg(arg), &order) };
        debug_assert_eq!(sizes(cx.of(arg)).iter().product::<i64>(), counts.iter().product::<i64>());
        let [b, n, k] = counts;
        let two = if turned { [k, n] } else { [n, k] };
        let tensor = if batched { cx.reshape(x, &[b, two[0], two[1]]) } else { cx.reshape(x, &two) };
        Self { tensor, turned }
    }
}
