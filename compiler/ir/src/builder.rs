//! Builds one function, node by node, inferring types as it goes.

use diag::PlaceId;
use smallvec::SmallVec;
use types::{DType, Dim, Name, TensorType};

use crate::op::{Class, NodeIds};
use crate::ops::{self, Op};
use crate::{Call, Function, Inst, Mismatch, Node, NodeId, Type};

/// Methods without `Result` note the first mismatch and go on with a placeholder; [`Builder::finish`] reports it.
/// Gradient rules and expansions read as formulas this way, and a mistake in one is still an error, not a panic.
pub struct Builder {
    pub function: Function,
    /// Given to every node added from now on.
    pub place: PlaceId,
    mismatch: Option<Mismatch>,
}

impl Builder {
    pub fn new(name: impl Into<Name>) -> Self {
        Self::extend(Function::new(name))
    }

    /// Goes on with a function that has nodes already.
    pub fn extend(function: Function) -> Self {
        Self { function, place: PlaceId::NONE, mismatch: None }
    }

    pub fn finish(self) -> Result<Function, Mismatch> {
        match self.mismatch {
            Some(mismatch) => Err(mismatch),
            None => Ok(self.function),
        }
    }

    /// Notes a mismatch found by other means.
    pub fn fail(&mut self, mismatch: Mismatch) {
        self.mismatch.get_or_insert(mismatch);
    }

    /// The first mismatch noted so far.
    pub fn mismatch(&self) -> Option<&Mismatch> {
        self.mismatch.as_ref()
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.function.nodes[id]
    }

    /// The tensor type of a node; a scalar stands in for a node that is no tensor (after a noted mismatch).
    pub fn ty(&self, id: NodeId) -> &TensorType {
        const SCALAR: &TensorType = &TensorType { dtype: DType::F32, dims: SmallVec::new_const() };
        self.function.ty(id).tensor().unwrap_or(SCALAR)
    }

    pub fn push(&mut self, inst: Inst, args: impl IntoIterator<Item = NodeId>, ty: Type) -> NodeId {
        let shardings = SmallVec::new();
        let node = Node { inst, args: args.into_iter().collect(), ty, shardings, place: self.place };
        self.function.nodes.add(node)
    }

    pub fn param(&mut self, ty: impl Into<Type>) -> NodeId {
        let index = self.function.params.len();
        let id = self.push(Inst::Param(index), [], ty.into());
        self.function.params.push(id);
        id
    }

    pub fn try_op(&mut self, op: impl Into<Op>, args: &[NodeId]) -> Result<NodeId, Mismatch> {
        let op = op.into();
        let mut types: SmallVec<[&TensorType; 8]> = SmallVec::new();
        for (i, &arg) in args.iter().enumerate() {
            let ty = self.function.ty(arg).tensor();
            types
                .push(ty.ok_or_else(|| Mismatch::new(format!("operand {i} of `{}` is no tensor", op.name())).of([i]))?);
        }
        let mut results = op.infer(&types)?;
        drop(types);
        let ty = match results.len() {
            1 => Type::Tensor(results.remove(0)),
            _ => Type::Tuple(results.into_iter().map(Type::Tensor).collect()),
        };
        Ok(self.push(Inst::Op(op), args.iter().copied(), ty))
    }

    pub fn op(&mut self, op: impl Into<Op>, args: &[NodeId]) -> NodeId {
        self.try_op(op, args).unwrap_or_else(|mismatch| {
            self.fail(mismatch);
            args.first().copied().unwrap_or_else(|| self.push(Inst::Unchunk, [], TensorType::scalar(DType::F32).into()))
        })
    }

    /// The results of an operator or call, each as a node of its own.
    pub fn results(&mut self, id: NodeId) -> NodeIds {
        let Type::Tuple(items) = self.function.ty(id).clone() else { return SmallVec::from_slice(&[id]) };
        items.into_iter().enumerate().map(|(i, ty)| self.push(Inst::Get(i), [id], ty)).collect()
    }

    /// `callee` is the function that `call.callee` names.
    pub fn try_call(&mut self, call: Call, callee: &Function, args: &[NodeId]) -> Result<NodeId, Mismatch> {
        let types: Vec<&Type> = args.iter().map(|&a| self.function.ty(a)).collect();
        let ty = call.infer(callee, &types)?;
        Ok(self.push(Inst::Call(call), args.iter().copied(), ty))
    }

    pub fn call(&mut self, call: Call, callee: &Function, args: &[NodeId]) -> NodeId {
        self.try_call(call, callee, args).unwrap_or_else(|mismatch| {
            self.fail(mismatch);
            self.push(Inst::Unchunk, [], TensorType::scalar(DType::F32).into())
        })
    }

    /// Cuts a tensor into `count` pieces along its first dim.
    pub fn chunk(&mut self, x: NodeId, count: usize) -> NodeId {
        let mut of = self.ty(x).clone();
        match of.dims.first_mut() {
            Some(dim) if count > 0 && dim.size.is_multiple_of(count) => dim.size /= count,
            _ => {
                self.fail(Mismatch::new(format!("`{of}` does not fall into {count} equal chunks along its first dim")))
            }
        }
        self.push(Inst::Chunk { count }, [x], Type::Stack { count, of })
    }

    pub fn unchunk(&mut self, x: NodeId) -> NodeId {
        let Type::Stack { count, of } = self.function.ty(x).clone() else {
            self.fail(Mismatch::new("`unchunk` takes a stack"));
            return x;
        };
        let mut ty = of;
        match ty.dims.first_mut() {
            Some(dim) => dim.size = dim.size.saturating_mul(count),
            None => self.fail(Mismatch::new("a stack of scalars has no dim along which to join it")),
        }
        self.push(Inst::Unchunk, [x], ty.into())
    }

    pub fn repeat(&mut self, x: NodeId, count: usize) -> NodeId {
        let of = self.ty(x).clone();
        self.push(Inst::Repeat { count }, [x], Type::Stack { count, of })
    }

    /// Equal pieces along a dim: runs of the same memory if only dims of one element stand before it.
    pub fn pieces(&mut self, x: NodeId, dim: usize, count: usize) -> Vec<NodeId> {
        let ty = self.ty(x).clone();
        let size = ty.dims[dim].size / count;
        if ty.dims[..dim].iter().any(|dim| dim.size != 1) {
            let slice = |i| ops::Slice { dim: ty.dims[dim].name.clone(), start: i * size, size };
            return (0..count).map(|i| self.op(slice(i), &[x])).collect();
        }
        let flat = self.reshape(x, &TensorType::new(ty.dtype, ty.dims[dim..].iter().cloned()));
        let stack = self.chunk(flat, count);
        let mut piece = ty.clone();
        piece.dims[dim].size = size;
        let of = TensorType::new(ty.dtype, piece.dims[dim..].iter().cloned());
        let get = |i| {
            let one = self.push(Inst::Get(i), [stack], of.clone().into());
            self.reshape(one, &piece)
        };
        (0..count).map(get).collect()
    }

    /// The inverse of [`Builder::pieces`], as `to`. The dim counts `outer` runs, and each piece has a part of every run.
    pub fn joined(&mut self, pieces: &[NodeId], dim: usize, outer: usize, to: &TensorType) -> NodeId {
        let name = to.dims[dim].name.clone();
        if outer == 1 {
            return self.op(ops::Concat { dim: name }, pieces);
        }
        let mut fresh = String::from("RUNS");
        while to.position(&fresh).is_some() {
            fresh.push('_');
        }
        let runs = |x: &NodeId| {
            let mut ty = self.ty(*x).clone();
            ty.dims[dim].size /= outer;
            ty.dims.insert(dim, Dim { name: fresh.as_str().into(), size: outer });
            self.reshape(*x, &ty)
        };
        let pieces: Vec<NodeId> = pieces.iter().map(runs).collect();
        let whole = self.op(ops::Concat { dim: name }, &pieces);
        self.reshape(whole, to)
    }

    pub fn constant(&mut self, value: f64, dtype: DType) -> NodeId {
        self.op(ops::Constant { value, dtype }, &[])
    }

    pub fn add(&mut self, a: NodeId, b: NodeId) -> NodeId {
        self.op(ops::Add {}, &[a, b])
    }

    pub fn sub(&mut self, a: NodeId, b: NodeId) -> NodeId {
        self.op(ops::Sub {}, &[a, b])
    }

    pub fn mul(&mut self, a: NodeId, b: NodeId) -> NodeId {
        self.op(ops::Mul {}, &[a, b])
    }

    pub fn div(&mut self, a: NodeId, b: NodeId) -> NodeId {
        self.op(ops::Div {}, &[a, b])
    }

    pub fn neg(&mut self, a: NodeId) -> NodeId {
        self.op(ops::Neg {}, &[a])
    }

    /// `x * factor`.
    pub fn scale(&mut self, x: NodeId, factor: f64) -> NodeId {
        let c = self.constant(factor, self.ty(x).dtype);
        self.mul(x, c)
    }

    /// `x + offset`.
    pub fn offset(&mut self, x: NodeId, offset: f64) -> NodeId {
        let c = self.constant(offset, self.ty(x).dtype);
        self.add(x, c)
    }

    /// `x` itself if it has that type already.
    pub fn cast(&mut self, x: NodeId, to: DType) -> NodeId {
        if self.ty(x).dtype == to { x } else { self.op(ops::Cast { to }, &[x]) }
    }

    pub fn reduce_sum(&mut self, x: NodeId, dims: &[Name]) -> NodeId {
        if dims.is_empty() { x } else { self.op(ops::ReduceSum { dims: dims.to_vec() }, &[x]) }
    }

    /// The same elements under other dims; `x` itself if nothing changes.
    pub fn reshape(&mut self, x: NodeId, to: &TensorType) -> NodeId {
        if self.ty(x).dims == to.dims { x } else { self.op(ops::Reshape { dims: to.dims.to_vec() }, &[x]) }
    }

    /// Sums over the dims that `to` lacks, then puts dims in its order; broadcasts dims that only `to` has.
    pub fn sum_to(&mut self, x: NodeId, to: &TensorType) -> NodeId {
        let lost: Vec<Name> =
            self.ty(x).dims.iter().filter(|d| to.position(&d.name).is_none()).map(|d| d.name.clone()).collect();
        let x = self.reduce_sum(x, &lost);
        self.arrange(x, to)
    }

    /// Transposes and broadcasts `x` so that its dims are those of `to`.
    pub fn arrange(&mut self, x: NodeId, to: &TensorType) -> NodeId {
        let have = self.ty(x).clone();
        if have.dims == to.dims {
            return x;
        }
        let order: Vec<Name> =
            to.dims.iter().filter(|d| have.position(&d.name).is_some()).map(|d| d.name.clone()).collect();
        let in_order = have.dims.iter().map(|d| &d.name).eq(order.iter());
        let x = if in_order { x } else { self.op(ops::Transpose { order }, &[x]) };
        if self.ty(x).dims == to.dims { x } else { self.op(ops::Broadcast { dims: to.dims.to_vec() }, &[x]) }
    }

    /// All zeros, as a broadcast scalar.
    pub fn zeros(&mut self, ty: &TensorType) -> NodeId {
        let zero = self.constant(0.0, ty.dtype);
        self.arrange(zero, ty)
    }

    pub fn class(&self, id: NodeId) -> Option<Class> {
        match &self.node(id).inst {
            Inst::Op(op) => Some(op.class()),
            _ => None,
        }
    }
}
