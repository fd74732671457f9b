//! `grouped_matmul`: products of rows with the matrices of the experts that numbers name: `td,tk,edf->tkf`.
//!
//! y[t, k] = x[t] w[ids[t, k]]. A number that names no expert, such as -1, gives a row of zeros.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{DType, Dim, Indices, Name, TensorType};

use super::compare::Comparison;
use super::elementwise::{distinct, wide};
use super::routing::{Asks, Routing, name, names, own_ids, text};
use super::{Compare, Gather, GroupedMatmulWeight, Matmul, Max, Min, Select, rope};
use crate::op::{Class, NodeIds, PartContext, Semantics, TextForm, Told, Types, Vjp};
use crate::{Array, Builder, Factors, Mismatch, NodeId};

/// Operands: rows, the experts' numbers (i64 or i32), the experts' matrices. Rows have some of the numbers' dims, and one
/// that is summed; the result has all of them, and one of the matrices'. The order of dims is free in all four.
/// Sums are kept in f32 (f64 for f64 operands) and rounded once to the result's type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupedMatmul {
    pub spec: String,
    /// Names of the result's dims.
    pub dims: Vec<Name>,
    /// The numbers are spread over so many experts, if the operand has a part of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub among: Option<usize>,
}

impl GroupedMatmul {
    /// `None` if the spec is no product by expert.
    pub fn routing(&self) -> Option<Routing<'_>> {
        Routing::of(&self.spec, Asks::Products)
    }
}

impl Semantics for GroupedMatmul {
    const NAME: &'static str = "grouped_matmul";
    const CLASS: Class = Class::Composite;
    const TEXT: TextForm = TextForm { first: "spec", told: &[("dims", Told::Names)] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        self.dims.iter_mut().collect()
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        let l = Routing::checked(&self.spec, Asks::Products, Self::NAME)?;
        let sizes = l.sizes(args, Asks::Products, Self::NAME)?;
        if self.dims.len() != l.products.len() {
            let (letters, named) = (l.products.len(), self.dims.len());
            return Err(Mismatch::new(format!("`{}` has {letters} result dims, {named} are named", self.spec)));
        }
        let size = |c: &u8| sizes.iter().find(|(known, _)| known == c).map_or(1, |s| s.1);
        let dims = l.products.iter().zip(&self.dims).map(|(c, name)| Dim { name: name.clone(), size: size(c) });
        Ok(smallvec![distinct(TensorType::new(args[0].dtype, dims)).map_err(|m| m.of([0, 2]))?])
    }

    /// A part of the experts gives zeros for rows of the others, so that the parts add up.
    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        let Some(l) = self.routing() else { return Factors::default() };
        l.factors(([l.rows, l.ids, l.weight], l.products), &[l.expert, l.from], (args, &results[0]))
    }

    fn indices(&self, args: &[&TensorType]) -> Option<(usize, Indices)> {
        let l = self.routing()?;
        let p = l.weight.iter().position(|c| *c == l.expert)?;
        Some(Routing::indices(args[2].dims[p].size))
    }

    fn partition(&self, cx: &mut PartContext<'_>) -> Option<NodeIds> {
        let l = self.routing()?;
        let place = |c: u8| l.weight.iter().position(|own| *own == c);
        let (expert, from) = (place(l.expert)?, place(l.from)?);
        let factor = |p: usize| cx.factors.args[2][p].first().copied();
        let (experts, summed) = (factor(expert)?, factor(from)?);
        let here = cx.b.ty(cx.args[2]).dims[expert].size;
        let ids = own_ids(cx, cx.args[1], experts, here)?;
        // No number names an expert that a short part lacks; what is summed must be there.
        let weight = if cx.cuts[summed].is_some() { cx.masked[2] } else { cx.args[2] };
        let among = self.among.unwrap_or(cx.factors.factors[experts].size);
        Some(smallvec![cx.b.op(Self { among: Some(among), ..self.clone() }, &[cx.masked[0], ids, weight])])
    }

    fn flops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        let Some(l) = self.routing() else { return 0 };
        let sizes = l.sizes(args, Asks::Products, Self::NAME).unwrap_or_default();
        Routing::flops(&sizes, args[1], &l, self.among)
    }

    fn matmul_flops(&self, args: &[&TensorType], results: &[TensorType]) -> u64 {
        self.flops(args, results)
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let Some(l) = self.routing() else { return cx.none() };
        let [x, ids, w] = [0, 1, 2].map(|i| cx.b.ty(cx.args[i]).clone());
        let g = cx.cotangent();
        let dx = cx.wanted[0].then(|| {
            // A row that several numbers send away gets the sum over them.
            let mut letters = l.rows.to_vec();
            let mut dims: Vec<Name> = x.dims.iter().map(|d| d.name.clone()).collect();
            for (i, &c) in l.ids.iter().enumerate().filter(|(_, c)| !l.rows.contains(c)) {
                let last = letters.len() - usize::from(letters.last() == Some(&l.from));
                letters.insert(last, c);
                dims.insert(last, rope::fresh(&ids.dims[i].name, &[&x]));
            }
            let spec = format!("{},{},{}->{}", text(l.products), text(l.ids), text(l.weight), text(&letters));
            let back = cx.b.op(Self { spec, dims, among: self.among }, &[g, cx.args[1], cx.args[2]]);
            cx.b.sum_to(back, &x)
        });
        let dw = cx.wanted[2].then(|| {
            let spec = format!("{},{},{}->{}", text(l.rows), text(l.ids), text(l.products), text(l.weight));
            let experts = w.dims[l.weight.iter().position(|c| *c == l.expert).unwrap_or(0)].size;
            let dims = w.dims.iter().map(|d| d.name.clone()).collect();
            let op = GroupedMatmulWeight { spec, dims, experts, among: self.among };
            cx.b.op(op, &[cx.args[0], cx.args[1], g])
        });
        smallvec![dx, None, dw]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let mut out = Array::zeros(results[0].clone());
        let Some(l) = self.routing() else { return smallvec![out] };
        let (x, w) = (args[0], args[2]);
        let size = |c: u8| l.weight.iter().position(|own| *own == c).map_or(0, |p| w.ty.dims[p].size);
        let (depth, width) = (size(l.from), size(l.to));
        let [of_expert, down, across] = [l.expert, l.from, l.to].map(|c| Routing::step(l.weight, &w.ty, c));
        let (in_row, in_product) = (Routing::step(l.rows, &x.ty, l.from), Routing::step(l.products, &results[0], l.to));
        l.for_each(args[1], (&x.ty, &results[0]), size(l.expert), |expert, row, product| {
            for d in 0..depth {
                let factor = x.data[row + d * in_row];
                let from = expert * of_expert + d * down;
                for f in 0..width {
                    out.data[product + f * in_product] += factor * w.data[from + f * across];
                }
            }
        });
        smallvec![out]
    }

    /// The products with all experts, of which the numbers pick some.
    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let l = self.routing()?;
        let types = [0, 1, 2].map(|i| b.ty(args[i]).clone());
        let out = self.infer(&types.each_ref()).ok()?.remove(0);
        let experts = types[2].dims[l.weight.iter().position(|c| *c == l.expert)?].size;
        let sums: DType = wide(out.dtype);
        let mut all: Vec<u8> = l.rows.iter().copied().filter(|c| *c != l.from).collect();
        all.extend([l.expert, l.to]);
        let spec = format!("{},{}->{}", text(l.rows), text(l.weight), text(&all));
        let products = b.op(Matmul { spec, dims: names(&all), dtype: Some(sums) }, &[args[0], args[2]]);
        let ids = b.reshape(args[1], &Routing::spelt(l.ids, &types[1]));
        let (zero, last) = (b.constant(0.0, types[1].dtype), b.constant(experts as f64 - 1.0, types[1].dtype));
        let safe = b.op(Max {}, &[ids, zero]);
        let safe = b.op(Min {}, &[safe, last]);
        let here = b.op(Compare { kind: Comparison::Equal }, &[ids, safe]);
        let picked = b.op(Gather { dim: name(l.expert) }, &[products, safe]);
        let own = Routing::spelt(l.products, &out).with_dtype(sums);
        let picked = b.arrange(picked, &own);
        let here = b.arrange(here, &own.with_dtype(DType::Bool));
        let nothing = b.constant(0.0, sums);
        let y = b.op(Select {}, &[here, picked, nothing]);
        let y = b.cast(y, out.dtype);
        Some(smallvec![b.reshape(y, &out)])
    }
}
