//! The rows of a tensor along one dim, and where their elements lie: what kernels that go along rows loop over.

use ir::{Function, NodeId};
use types::{DType, Name};

use super::apply::stored;
use super::{LowerError, Pointers, behind_views};
use crate::emit::{Elem, Emitter, Val};

pub struct Rows {
    /// The node whose bytes are the tensor's.
    of: NodeId,
    pub dtype: DType,
    /// Elements before the dim, along it and after it.
    pub outer: u64,
    pub size: u64,
    pub inner: u64,
}

impl Rows {
    /// The rows of the first operand of `node`, which stands alone in its kernel.
    pub fn new(function: &Function, node: NodeId, dim: &Name) -> Result<Rows, LowerError> {
        let operand = function.nodes[node].args[0];
        let ty = function.ty(operand).tensor().ok_or_else(|| LowerError::new("rows of what is no tensor"))?;
        let place = ty.position(dim).ok_or_else(|| LowerError::new("rows along a dim that is not there"))?;
        if function.results.iter().any(|&result| !is_of(function, result, node)) {
            return Err(LowerError::new(format!("rows along {dim} share their kernel with something else")));
        }
        let product = |dims: &[types::Dim]| dims.iter().map(|dim| dim.size as u64).product();
        Ok(Rows {
            of: behind_views(function, operand),
            dtype: ty.dtype,
            outer: product(&ty.dims[..place]),
            size: ty.dims[place].size as u64,
            inner: product(&ty.dims[place + 1..]),
        })
    }

    pub fn count(&self) -> u64 {
        self.outer * self.inner
    }

    pub fn elem(&self) -> Elem {
        stored(self.dtype)
    }

    pub fn operand(&self, pointers: &Pointers) -> Result<Val, LowerError> {
        pointers.bases.get(&self.of).copied().ok_or_else(|| LowerError::new("rows of a computed operand"))
    }

    /// Where the row at these places before and after the dim begins.
    pub fn start(&self, e: &mut Emitter, outer: Val, inner: Val) -> Val {
        let run = e.i64((self.size * self.inner) as i64);
        let start = e.mul(outer, run);
        e.add(start, inner)
    }

    /// Where element `k` of a row stands.
    pub fn place(&self, e: &mut Emitter, start: Val, k: Val) -> Val {
        let step = e.i64(self.inner as i64);
        let along = e.mul(k, step);
        e.add(start, along)
    }
}

fn is_of(function: &Function, result: NodeId, node: NodeId) -> bool {
    let result = behind_views(function, result);
    let is_item = matches!(function.nodes[result].inst, ir::Inst::Get(_));
    result == node || (is_item && function.nodes[result].args[0] == node)
}
