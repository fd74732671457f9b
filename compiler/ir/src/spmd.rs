//! What one rank computes around its operators: where its part of a dim starts, what of it is there, and how parts go
//! between ranks.
//!
//! Collectives work on whole runs of memory: the pieces of the ranks stand along the first dim.

use types::{DType, Dim, Mesh, Name, TensorType};

use crate::op::PartOf;
use crate::ops::Comparison;
use crate::ops::{
    AllGather, AllReduce, AllToAll, Compare, Coordinate, Exp, Iota, Log, Max, Min, Pad, Permute, ReduceScatter,
    Reshape, Select, Slice, Transpose, Window,
};
use crate::{Builder, NodeId, NodeIds, PartialKind};

/// One function under construction, as one rank of `mesh` runs it.
pub struct SpmdBuilder<'m> {
    pub b: Builder,
    pub mesh: &'m Mesh,
    coordinates: Vec<(Name, NodeId)>,
}

impl<'m> SpmdBuilder<'m> {
    pub fn new(b: Builder, mesh: &'m Mesh) -> Self {
        Self { b, mesh, coordinates: vec![] }
    }

    fn coordinate(&mut self, axis: &Name) -> NodeId {
        if let Some((_, id)) = self.coordinates.iter().find(|(a, _)| a == axis) {
            return *id;
        }
        let id = self.b.op(Coordinate { axis: axis.clone() }, &[]);
        self.coordinates.push((axis.clone(), id));
        id
    }

    /// For each level of blocks, where this rank's part begins in the block of that level; the last is 0.
    fn starts(&mut self, blocks: &[usize], axes: &[Name]) -> Vec<NodeId> {
        let mut start = self.b.constant(0.0, DType::I64);
        let mut out = vec![start];
        for (axis, block) in axes.iter().zip(&blocks[1..]).rev() {
            let at = self.coordinate(axis);
            let before = self.b.scale(at, *block as f64);
            start = if out.len() == 1 { before } else { self.b.add(before, start) };
            out.push(start);
        }
        out.reverse();
        out
    }

    /// Which part of a dim of `size` elements the rank has where `axes` cut it.
    pub fn part(&mut self, size: usize, axes: &[Name]) -> PartOf {
        let blocks = self.mesh.blocks(size, axes);
        let starts = self.starts(&blocks, axes);
        let mut length: Option<NodeId> = None;
        for level in self.short(&blocks, axes) {
            let end = self.b.constant(blocks[level] as f64, DType::I64);
            let rest = self.b.sub(end, starts[level]);
            length = Some(length.map_or(rest, |l| self.b.op(Min {}, &[l, rest])));
        }
        let length = length.map(|rest| {
            let zero = self.b.constant(0.0, DType::I64);
            let full = self.b.constant(blocks[axes.len()] as f64, DType::I64);
            let rest = self.b.op(Max {}, &[rest, zero]);
            self.b.op(Min {}, &[rest, full])
        });
        PartOf { start: starts[0], length }
    }

    /// The levels whose blocks do not divide.
    fn short(&self, blocks: &[usize], axes: &[Name]) -> Vec<usize> {
        (0..axes.len()).filter(|&m| blocks[m + 1] * self.mesh.size(&axes[m]) != blocks[m]).collect()
    }

    /// Whether some rank's part of the dim is short.
    pub fn is_short(&self, size: usize, axes: &[Name]) -> bool {
        !self.short(&self.mesh.blocks(size, axes), axes).is_empty()
    }

    /// `x` with `value` where the rank's part of dim `d`, of `size` elements in all, has no elements.
    pub fn mask(&mut self, x: NodeId, d: usize, size: usize, axes: &[Name], value: f64) -> NodeId {
        let Some(length) = self.part(size, axes).length else { return x };
        let ty = self.b.ty(x).clone();
        let index = self.b.op(Iota { dim: ty.dims[d].clone(), dtype: DType::I64 }, &[]);
        let there = self.b.op(Compare { kind: Comparison::Less }, &[index, length]);
        let there = if ty.rank() == 1 { there } else { self.b.arrange(there, &ty.with_dtype(DType::Bool)) };
        let value = self.b.constant(value, ty.dtype);
        self.b.op(Select {}, &[there, x, value])
    }

    /// The rank's part of dim `d`, which it has whole.
    pub fn window(&mut self, x: NodeId, d: usize, axes: &[Name]) -> NodeId {
        let dim = self.b.ty(x).dims[d].clone();
        let blocks = self.mesh.blocks(dim.size, axes);
        let start = self.starts(&blocks, axes)[0];
        self.b.op(Window { dim: dim.name, size: blocks[axes.len()] }, &[x, start])
    }

    pub fn all_reduce(&mut self, x: NodeId, kind: PartialKind, axes: &[Name], why: &Name) -> NodeId {
        let ranks = self.mesh.group(axes);
        let op = AllReduce { axes: axes.to_vec(), max: kind == PartialKind::Max, ranks, why: why.clone() };
        self.b.op(op, &[x])
    }

    /// The softmax over all ranks' parts of its keys: each counts as e^lse; see [`crate::Semantics::merge`].
    pub fn merge(&mut self, [out, lse]: [NodeId; 2], axes: &[Name], why: &Name) -> [NodeId; 2] {
        let (narrow, wide) = (self.b.ty(out).dtype, self.b.ty(lse).dtype);
        let top = self.all_reduce(lse, PartialKind::Max, axes, why);
        // Where no rank sees a key, all weights are zero.
        let least = self.b.constant(-1e30, wide);
        let top = self.b.op(Max {}, &[top, least]);
        let below = self.b.sub(lse, top);
        let weight = self.b.op(Exp {}, &[below]);
        let out = self.b.cast(out, wide);
        let out = self.b.mul(out, weight);
        let [out, sum] = [out, weight].map(|x| self.all_reduce(x, PartialKind::Sum, axes, why));
        let some = self.b.constant(1e-30, wide);
        let some = self.b.op(Max {}, &[sum, some]);
        let out = self.b.div(out, some);
        let log = self.b.op(Log {}, &[sum]);
        [self.b.cast(out, narrow), self.b.add(log, top)]
    }

    /// Dim `d` whole, of `size` elements, from the parts that ranks have along `axes`.
    pub fn all_gather(&mut self, x: NodeId, d: usize, size: usize, axes: &[Name], why: &Name) -> NodeId {
        let dim = Dim { name: self.fresh(x), size: self.mesh.group(axes) };
        let x = self.b.op(AllGather { axes: axes.to_vec(), dim, why: why.clone() }, &[x]);
        self.join(x, d, size, axes)
    }

    /// This rank's part of dim `d` of the sum of all ranks' values.
    pub fn reduce_scatter(&mut self, x: NodeId, d: usize, axes: &[Name], why: &Name) -> NodeId {
        let x = self.cut(x, d, axes);
        self.b.op(ReduceScatter { axes: axes.to_vec(), why: why.clone() }, &[x])
    }

    /// Dim `whole`, of `size` elements, from the parts that ranks have along `axes`, for a part of dim `cut`.
    pub fn all_to_all(
        &mut self,
        x: NodeId,
        (cut, whole): (usize, usize),
        size: usize,
        axes: &[Name],
        why: &Name,
    ) -> NodeId {
        let x = self.cut(x, cut, axes);
        let x = self.b.op(AllToAll { axes: axes.to_vec(), why: why.clone() }, &[x]);
        self.join(x, whole, size, axes)
    }

    /// Values that go to the next rank along `axes`, all at once.
    pub fn rotate(&mut self, values: &[NodeId], axes: &[Name], why: &Name) -> NodeIds {
        let moved = self.b.op(Permute { axes: axes.to_vec(), shift: 1, why: why.clone() }, values);
        self.b.results(moved)
    }

    /// The pieces of dim `d` along a new first dim, one for each rank along `axes`.
    fn cut(&mut self, x: NodeId, d: usize, axes: &[Name]) -> NodeId {
        let mut x = x;
        let name = self.b.ty(x).dims[d].name.clone();
        let blocks = self.mesh.blocks(self.b.ty(x).dims[d].size, axes);
        let mut pieces: Vec<Dim> = vec![];
        for (k, axis) in axes.iter().enumerate() {
            let ranks = self.mesh.size(axis);
            let missing = (ranks * blocks[k + 1]).saturating_sub(blocks[k]);
            if missing > 0 {
                x = self.b.op(Pad { dim: name.clone(), before: 0, after: missing, value: 0.0 }, &[x]);
            }
            let mut ty = self.b.ty(x).clone();
            let dim = Dim { name: self.fresh(x), size: ranks };
            ty.dims[d + k].size = blocks[k + 1];
            ty.dims.insert(d + k, dim.clone());
            x = self.b.reshape(x, &ty);
            pieces.push(dim);
        }
        let ty = self.b.ty(x).clone();
        let rest = ty.dims.iter().filter(|dim| !pieces.contains(dim));
        let mut to = TensorType::new(ty.dtype, pieces.iter().chain(rest).cloned());
        x = self.order(x, &to);
        if pieces.len() > 1 {
            let merged = Dim { name: pieces[0].name.clone(), size: self.mesh.group(axes) };
            to.dims.drain(..pieces.len());
            to.dims.insert(0, merged);
            x = self.b.reshape(x, &to);
        }
        x
    }

    /// The inverse of [`SpmdBuilder::cut`]: the pieces of dim `d`, which stand along the first dim, as one dim of `size`.
    fn join(&mut self, x: NodeId, d: usize, size: usize, axes: &[Name]) -> NodeId {
        let blocks = self.mesh.blocks(size, axes);
        let mut x = x;
        let mut ty = self.b.ty(x).clone();
        let name = ty.dims[d + 1].name.clone();
        ty.dims.remove(0);
        let mut pieces: Vec<Dim> = vec![];
        for axis in axes {
            let taken = TensorType::new(ty.dtype, ty.dims.iter().chain(&pieces).cloned());
            pieces.push(Dim { name: fresh("RANKS", &taken), size: self.mesh.size(axis) });
        }
        let split = TensorType::new(ty.dtype, pieces.iter().chain(&ty.dims).cloned());
        x = self.b.reshape(x, &split);
        let mut to = ty.clone();
        to.dims.insert_many(d, pieces.iter().cloned());
        x = self.order(x, &to);
        for (k, axis) in axes.iter().enumerate().rev() {
            to.dims.remove(d + k);
            to.dims[d + k].size = self.mesh.size(axis) * blocks[k + 1];
            if k == 0 || to.dims[d + k].size != blocks[k] {
                x = self.b.reshape(x, &to);
            }
            if to.dims[d + k].size != blocks[k] {
                to.dims[d + k].size = blocks[k];
                x = self.b.op(Slice { dim: name.clone(), start: 0, size: blocks[k] }, &[x]);
            }
        }
        x
    }

    fn order(&mut self, x: NodeId, to: &TensorType) -> NodeId {
        let order: Vec<Name> = to.dims.iter().map(|d| d.name.clone()).collect();
        let ty = self.b.ty(x);
        if ty.dims == to.dims {
            return x;
        }
        // Dims of one element move for free.
        let long = |ty: &TensorType| ty.dims.iter().filter(|d| d.size != 1).cloned().collect::<Vec<_>>();
        if long(ty) == long(to) {
            return self.b.op(Reshape { dims: to.dims.to_vec() }, &[x]);
        }
        self.b.op(Transpose { order }, &[x])
    }

    fn fresh(&self, x: NodeId) -> Name {
        fresh("RANKS", self.b.ty(x))
    }
}

fn fresh(base: &str, ty: &TensorType) -> Name {
    let mut name = base.to_string();
    while ty.position(&name).is_some() {
        name.push('_');
    }
    name.into()
}
