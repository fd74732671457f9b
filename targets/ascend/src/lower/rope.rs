//! Rotary embedding as RotaryPositionEmbedding, computed in f32: its tables must be of the type of what they rotate, and ours are f32.

use ir::ops::{Rope, RopeForm};
use types::TensorType;

use super::cx::{Cx, sizes};
use crate::dtype::DataType;
use crate::graph::Tensor;
use crate::infer::{Value, rotates};
use crate::table::Op;

pub fn rope(cx: &mut Cx<'_>, op: &Rope) -> Vec<Tensor> {
    let (ty, dtype) = (cx.of(0), cx.dtype(cx.arg(0)));
    let (at, last) = (ty.position(&op.dim).unwrap_or(0), ty.rank() - 1);
    let width = ty.dims[at].size as i64;
    let Some(layout) = Layout::of(ty, cx.of(1), at) else {
        cx.g.fail(format!("`{ty}` does not fold into four dims around its angles"));
        return vec![];
    };
    let x = cx.move_dim(cx.arg(0), at, last);
    let moved = cx.g.shape(x);
    let x = cx.cast(x, DataType::Float);
    let x = cx.reshape(x, &[&layout.own[..], &[width]].concat());
    let [cos, sin] = [1, 2].map(|i| {
        let table = cx.arg(i);
        let table = doubled(cx, table, op.form);
        cx.reshape(table, &[&layout.table[..], &[width]].concat())
    });
    let y = cx.g.op(Op::RotaryPositionEmbedding, &[x, cos, sin], &[("mode", Value::Int(mode(op.form)))]);
    let y = cx.reshape(y, &moved);
    let y = cx.cast(y, dtype);
    vec![cx.move_dim(y, last, at)]
}

const fn mode(form: RopeForm) -> i64 {
    match form {
        RopeForm::Half => 0,
        RopeForm::Interleaved => 1,
    }
}

/// An angle for each element of a pair, where we have one for each pair.
fn doubled(cx: &mut Cx<'_>, table: Tensor, form: RopeForm) -> Tensor {
    let shape = cx.g.shape(table);
    let last = shape.len() - 1;
    match form {
        RopeForm::Half => cx.concat(&[table, table], last),
        RopeForm::Interleaved => {
            let split = cx.reshape(table, &[&shape[..], &[1]].concat());
            let twice = cx.broadcast(split, &[&shape[..], &[2]].concat());
            cx.reshape(twice, &[&shape[..last], &[2 * shape[last]]].concat())
        }
    }
}

/// The three dims before the last: of what is rotated, and of the angles, which have 1 where they do not differ.
pub struct Layout {
    own: [i64; 3],
    table: [i64; 3],
}

impl Layout {
    /// Neighbours that are both dims of the angles, or neither, are one dim; `None` if more than three remain. What comes
    /// out is angles of (1, S, 1) or (B, 1, S).
    pub fn of(ty: &TensorType, table: &TensorType, at: usize) -> Option<Self> {
        let rest: Vec<_> = ty.dims.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, d)| d).collect();
        let shared = &table.dims[..table.rank().checked_sub(1)?];
        let mut groups: Vec<(bool, i64)> = vec![];
        for dim in rest {
            let has = shared.contains(dim);
            match groups.last_mut() {
                Some((kind, size)) if *kind == has => *size *= dim.size as i64,
                _ => groups.push((has, dim.size as i64)),
            }
        }
        // The batch comes first and has no angles of its own.
        if groups.len() < 3 && groups.first().is_some_and(|g| g.0) {
            groups.insert(0, (false, 1));
        }
        while groups.len() < 3 {
            groups.push((false, 1));
        }
        let groups = <[(bool, i64); 3]>::try_from(groups).ok()?;
        let own = groups.map(|g| g.1);
        debug_assert_eq!(own.iter().product::<i64>() * ty.dims[at].size as i64, sizes(ty).iter().product::<i64>());
        Some(Self { own, table: groups.map(|(has, size)| if has { size } else { 1 }) })
    }

    /// Whether CANN rotates `ty` by it.
    pub fn fits(&self, ty: &TensorType, at: usize, form: RopeForm) -> bool {
        let width = ty.dims[at].size as i64;
        let with = |[a, b, c]: [i64; 3]| [a, b, c, width];
        rotates(with(self.own), with(self.table), mode(form))
    }
}
