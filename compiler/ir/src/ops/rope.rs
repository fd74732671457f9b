//! `rope`: rotary position embedding (Su et al., 2021): pairs of elements (a, b) become (a cos - b sin, a sin + b cos).

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{Dim, Name, TensorType};

use super::elementwise::{arity, wide};
use super::{Concat, Slice};
use crate::array::{dot, for_each_index, strides_in};
use crate::factors::FactorKind;
use crate::op::{Class, NodeIds, Semantics, TextForm, Types, Vjp};
use crate::{Array, Builder, Factors, Mismatch, NodeId};

/// Operands x, cos, sin. The tables have dims that x has, except `dim`, in the same order, and one last dim, of any
/// name, with an element for each pair. They are f32 unless x is f64.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rope {
    pub dim: Name,
    pub form: RopeForm,
}

/// Which elements of a row of n are a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeForm {
    /// 2i and 2i + 1.
    Interleaved,
    /// i and i + n/2.
    Half,
}

impl RopeForm {
    /// The two elements of pair `i` in a row of `n`.
    pub fn pair(self, i: usize, n: usize) -> [usize; 2] {
        match self {
            RopeForm::Interleaved => [2 * i, 2 * i + 1],
            RopeForm::Half => [i, i + n / 2],
        }
    }
}

impl Semantics for Rope {
    const NAME: &'static str = "rope";
    const CLASS: Class = Class::Composite;
    const TEXT: TextForm = TextForm { first: "dim", told: &[] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        smallvec![&mut self.dim]
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 3, Self::NAME)?;
        let (x, cos, sin) = (args[0], args[1], args[2]);
        let fail = |message: String, i: usize| Err(Mismatch::new(message).of([0, i]));
        let Some(n) = x.size_of(&self.dim) else {
            return fail(format!("`{x}` has no dim {} to rotate", self.dim), 0);
        };
        if !x.dtype.is_float() || n % 2 == 1 {
            return fail(format!("`rope` rotates pairs of floats, not `{x}` along {}", self.dim), 0);
        }
        if cos != sin {
            return Err(Mismatch::new(format!("the cosines are `{cos}` and the sines `{sin}`")).of([1, 2]));
        }
        if cos.dtype != wide(x.dtype) {
            return fail(format!("the tables of `rope` are {}, not {}", cos.dtype, wide(x.dtype)), 1);
        }
        let rest = x.without(std::slice::from_ref(&self.dim));
        let Some((last, shared)) = cos.dims.split_last().filter(|(l, _)| l.size == n / 2) else {
            return fail(format!("the last dim of `{cos}` must have {} elements, one for each pair", n / 2), 1);
        };
        let mut own = rest.dims.iter();
        if rest.position(&last.name).is_some() || !shared.iter().all(|d| own.any(|o| o == d)) {
            return Err(Mismatch::new(format!("`{cos}` does not broadcast over `{x}`"))
                .of([0, 1])
                .help("but for the last, its dims must be dims of the operand in the same order"));
        }
        Ok(smallvec![x.clone()])
    }

    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        let table = TensorType::new(args[1].dtype, args[1].dims.iter().take(args[1].rank().saturating_sub(1)).cloned());
        let mut out =
            Factors::by_name(&[args[0], &table, &table], results).mark(&[&self.dim], FactorKind::Whole);
        out.args[1].push(SmallVec::new());
        out.args[2].push(SmallVec::new());
        out
    }

    fn flops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        3 * args[0].elements() as u64
    }

    /// The inverse rotation. The tables are never differentiated.
    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let g = cx.cotangent();
        let back = cx.b.neg(cx.args[2]);
        smallvec![Some(cx.b.op(self.clone(), &[g, cx.args[1], back])), None, None]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let (x, cos, sin) = (args[0], args[1], args[2]);
        let n = x.ty.size_of(&self.dim).unwrap_or(0);
        let step = x.ty.position(&self.dim).map_or(0, |p| x.ty.strides()[p]);
        let rest = x.ty.without(std::slice::from_ref(&self.dim));
        let rows = strides_in(&x.ty, &rest);
        let table = TensorType::new(cos.ty.dtype, cos.ty.dims[..cos.ty.rank() - 1].iter().cloned());
        let tables: Vec<usize> = strides_in(&table, &rest).iter().map(|s| s * (n / 2)).collect();
        let mut out = Array::zeros(results[0].clone());
        for_each_index(&rest.sizes(), |index| {
            let (row, angle) = (dot(index, &rows), dot(index, &tables));
            for i in 0..n / 2 {
                let [first, second] = self.form.pair(i, n).map(|e| row + e * step);
                let (a, b) = (x.data[first], x.data[second]);
                let (c, s) = (cos.data[angle + i], sin.data[angle + i]);
                out.data[first] = a * c - b * s;
                out.data[second] = a * s + b * c;
            }
        });
        smallvec![out]
    }

    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let ty = b.ty(args[0]).clone();
        let p = ty.position(&self.dim)?;
        let x = b.cast(args[0], wide(ty.dtype));
        let table = b.ty(args[1]).clone();
        let half = table.dims.last()?.clone();
        let pair = fresh(&format!("{}.pair", self.dim), &[&ty, &table]);
        // x with its dim split in two, and one element of the pair with its dim kept.
        let split = |size: usize| split(&ty, p, &half, &pair, size, self.form);
        let whole = b.reshape(x, &split(2));
        let (one, mut row) = (split(1), ty.clone());
        row.dims[p] = half.clone();
        // The tables' last dim goes where the rotated one stands.
        let in_order = TensorType::new(table.dtype, row.dims.iter().filter(|d| table.dims.contains(d)).cloned());
        let (cos, sin) = (b.arrange(args[1], &in_order), b.arrange(args[2], &in_order));
        let part = |b: &mut Builder, start: usize| {
            let part = b.op(Slice { dim: pair.clone(), start, size: 1 }, &[whole]);
            b.reshape(part, &row)
        };
        let (first, second) = (part(b, 0), part(b, 1));
        let ac = b.mul(first, cos);
        let bs = b.mul(second, sin);
        let a = b.sub(ac, bs);
        let as_ = b.mul(first, sin);
        let bc = b.mul(second, cos);
        let c = b.add(as_, bc);
        let parts = [b.reshape(a, &one), b.reshape(c, &one)];
        let joined = b.op(Concat { dim: pair }, &parts);
        let y = b.reshape(joined, &ty);
        Some(smallvec![b.cast(y, ty.dtype)])
    }
}

/// `ty` with the dim at `p` split into pairs of `size` elements.
fn split(ty: &TensorType, p: usize, half: &Dim, pair: &Name, size: usize, form: RopeForm) -> TensorType {
    let pair = Dim { name: pair.clone(), size };
    let two = match form {
        RopeForm::Interleaved => [half.clone(), pair],
        RopeForm::Half => [pair, half.clone()],
    };
    let mut dims = ty.dims.clone();
    dims.remove(p);
    dims.insert_many(p, two);
    TensorType { dtype: ty.dtype, dims }
}

/// `base`, or something like it that none of the types has as a dim.
pub(super) fn fresh(base: &str, types: &[&TensorType]) -> Name {
    let mut name = base.to_string();
    while types.iter().any(|t| t.position(&name).is_some()) {
        name.push('_');
    }
    name.into()
}
