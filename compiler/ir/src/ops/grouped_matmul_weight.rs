//! `grouped_matmul_weight`: for each expert the sum of outer products of the rows that are sent to it; the gradient of
//! `grouped_matmul` with respect to its matrices: `td,tk,tkf->edf`.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{Dim, Indices, Name, TensorType};

use super::compare::Comparison;
use super::elementwise::{distinct, wide};
use super::routing::{Asks, Routing, name, names, own_ids, text};
use super::{Compare, Iota, Matmul};
use crate::op::{Class, NodeIds, PartContext, Semantics, TextForm, Told, Types, Vjp};
use crate::{Array, Builder, Factors, Mismatch, NodeId};

/// Operands: rows, the experts' numbers, and what each row meets. An expert to which no row is sent has zeros.
/// Sums are kept in f32 (f64 for f64 operands), in the order of the numbers, and rounded once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupedMatmulWeight {
    pub spec: String,
    /// Names of the result's dims.
    pub dims: Vec<Name>,
    /// How many experts the result has.
    pub experts: usize,
    /// The numbers are spread over so many experts, if the result has a part of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub among: Option<usize>,
}

impl GroupedMatmulWeight {
    /// `None` if the spec is no product by expert.
    pub fn routing(&self) -> Option<Routing<'_>> {
        Routing::of(&self.spec, Asks::Weight)
    }
}

impl Semantics for GroupedMatmulWeight {
    const NAME: &'static str = "grouped_matmul_weight";
    const CLASS: Class = Class::Composite;
    const TEXT: TextForm = TextForm { first: "spec", told: &[("dims", Told::Names)] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        self.dims.iter_mut().collect()
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        let l = Routing::checked(&self.spec, Asks::Weight, Self::NAME)?;
        let mut sizes = l.sizes(args, Asks::Weight, Self::NAME)?;
        sizes.push((l.expert, self.experts));
        if self.dims.len() != l.weight.len() {
            let (letters, named) = (l.weight.len(), self.dims.len());
            return Err(Mismatch::new(format!("`{}` has {letters} result dims, {named} are named", self.spec)));
        }
        let size = |c: &u8| sizes.iter().find(|(known, _)| known == c).map_or(1, |s| s.1);
        let dims = l.weight.iter().zip(&self.dims).map(|(c, name)| Dim { name: name.clone(), size: size(c) });
        Ok(smallvec![distinct(TensorType::new(args[0].dtype, dims)).map_err(|m| m.of([0, 2]))?])
    }

    /// Cutting the rows leaves partial sums; a part of the experts takes the rows that are sent to it.
    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        let Some(l) = self.routing() else { return Factors::default() };
        l.factors(([l.rows, l.ids, l.products], l.weight), l.ids, (args, &results[0]))
    }

    fn indices(&self, _: &[&TensorType]) -> Option<(usize, Indices)> {
        Some(Routing::indices(self.experts))
    }

    fn partition(&self, cx: &mut PartContext<'_>) -> Option<NodeIds> {
        let l = self.routing()?;
        let expert = l.weight.iter().position(|c| *c == l.expert)?;
        let factor = cx.factors.results[0][expert].first().copied()?;
        let experts = cx.results[0].dims[expert].size;
        // Rows that a short part lacks are zeros, wherever they are sent.
        let ids = own_ids(cx, cx.masked[1], factor, experts)?;
        let among = Some(self.among.unwrap_or(self.experts));
        Some(smallvec![cx.b.op(Self { experts, among, ..self.clone() }, &[cx.masked[0], ids, cx.masked[2]])])
    }

    fn flops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        let Some(l) = self.routing() else { return 0 };
        let mut sizes = l.sizes(args, Asks::Weight, Self::NAME).unwrap_or_default();
        sizes.push((l.expert, self.experts));
        Routing::flops(&sizes, args[1], &l, self.among)
    }

    fn matmul_flops(&self, args: &[&TensorType], results: &[TensorType]) -> u64 {
        self.flops(args, results)
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.refuse(Self::NAME)
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let mut out = Array::zeros(results[0].clone());
        let Some(l) = self.routing() else { return smallvec![out] };
        let (x, g) = (args[0], args[2]);
        let size = |c: u8| l.weight.iter().position(|own| *own == c).map_or(0, |p| results[0].dims[p].size);
        let [of_expert, down, across] = [l.expert, l.from, l.to].map(|c| Routing::step(l.weight, &results[0], c));
        let (in_row, in_product) = (Routing::step(l.rows, &x.ty, l.from), Routing::step(l.products, &g.ty, l.to));
        l.for_each(args[1], (&x.ty, &g.ty), self.experts, |expert, row, product| {
            for d in 0..size(l.from) {
                let factor = x.data[row + d * in_row];
                let to = expert * of_expert + d * down;
                for f in 0..size(l.to) {
                    out.data[to + f * across] += factor * g.data[product + f * in_product];
                }
            }
        });
        smallvec![out]
    }

    /// Sums over all rows for each expert, of which the numbers keep some.
    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let l = self.routing()?;
        let types = [0, 1, 2].map(|i| b.ty(args[i]).clone());
        let out = self.infer(&types.each_ref()).ok()?.remove(0);
        let sums = wide(out.dtype);
        let ids = b.reshape(args[1], &Routing::spelt(l.ids, &types[1]));
        let expert = Dim { name: name(l.expert), size: self.experts };
        let numbers = b.op(Iota { dim: expert, dtype: types[1].dtype }, &[]);
        let sent = b.op(Compare { kind: Comparison::Equal }, &[ids, numbers]);
        let sent = b.cast(sent, sums);
        let mut kept: Vec<u8> = l.ids.iter().copied().filter(|c| l.rows.contains(c)).collect();
        kept.extend([l.expert, l.to]);
        let products = b.cast(args[2], sums);
        let spec = format!("{}{},{}->{}", text(l.ids), char::from(l.expert), text(l.products), text(&kept));
        let met = b.op(Matmul { spec, dims: names(&kept), dtype: None }, &[sent, products]);
        let rows = b.cast(args[0], sums);
        let spec = format!("{},{}->{}", text(l.rows), text(&kept), text(l.weight));
        let dw = b.op(Matmul { spec, dims: self.dims.clone(), dtype: Some(out.dtype) }, &[rows, met]);
        Some(smallvec![dw])
    }
}
