//! Products of two tensors over any dims: packed operands, a register-tiled inner kernel, and an epilogue in the last pass.
//!
//! A part takes panels of rows of one block of columns after another: it packs the columns once, then multiplies its rows,
//! read in place where that can be, with them. Each element is summed along K in order, whatever the blocks and parts are,
//! so neither changes bits. Scratch: [`Tiling::scratch`] for each part.

mod blocks;
mod columns;
mod micro;
mod rows;
mod tiling;

pub use blocks::{Panels, Span};
pub use columns::pack as pack_columns;
pub use micro::{Micro, Word, register_tile};
pub use rows::{Source, weave, whole_row, word_by_word};
pub use tiling::{Lhs, RHS_BYTES, Tiling};

use crate::emit::{Elem, Emitter, Val};
use crate::nest::{Dim, merge, sizes};

/// Operand numbers in [`Dim::strides`]; numbers from [`EXTRA`] on belong to the epilogue.
pub const LHS: usize = 0;
pub const RHS: usize = 1;
pub const OUT: usize = 2;
pub const EXTRA: usize = 3;

/// `out[batch, m, n] = sum over k of lhs[batch, m, k] * rhs[batch, k, n]`, each letter a list of dims.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Matmul {
    pub batch: Vec<Dim>,
    pub m: Vec<Dim>,
    pub n: Vec<Dim>,
    pub k: Vec<Dim>,
    pub lhs: Elem,
    pub rhs: Elem,
}

/// What becomes of the sums.
pub trait Epilogue {
    /// Gets each accumulated vector once, and stores it.
    fn finish(&mut self, e: &mut Emitter, site: &Site<'_>, sum: Val);

    /// Addresses of what it will read and write from the site on, as far as a row of a tile goes: they are asked for while the
    /// tile is multiplied.
    fn ahead(&self, e: &mut Emitter, site: &Site<'_>) -> Vec<(Val, Elem)> {
        let _ = (e, site);
        Vec::new()
    }
}

impl<F: FnMut(&mut Emitter, &Site<'_>, Val)> Epilogue for F {
    fn finish(&mut self, e: &mut Emitter, site: &Site<'_>, sum: Val) {
        self(e, site, sum);
    }
}

/// Where an epilogue stands: one vector of one row of the result.
pub struct Site<'a> {
    matmul: &'a Matmul,
    batch: Val,
    m: Val,
    n_outer: Val,
    n_inner: Val,
    /// Lanes that exist, where not all do.
    mask: Option<Val>,
}

impl Site<'_> {
    /// The offset of the vector's first element in `operand`.
    pub fn offset(&self, e: &mut Emitter, operand: usize) -> Val {
        let (outer, inner) = self.matmul.columns();
        let batch = e.offset_linear(&self.matmul.batch, self.batch, operand);
        let row = e.offset_linear(&self.matmul.m, self.m, operand);
        let column = e.offset_linear(outer, self.n_outer, operand);
        let stride = e.i64(inner.strides[operand]);
        let last = e.mul(self.n_inner, stride);
        let sum = e.add(batch, row);
        let sum = e.add(sum, column);
        e.add(sum, last)
    }

    pub fn lanes(&self, e: &Emitter) -> u32 {
        e.lanes()
    }

    /// Elements of `operand` from one lane to the next.
    pub fn stride(&self, operand: usize) -> i64 {
        self.matmul.columns().1.strides[operand]
    }

    /// Whether rows of `operand` lie apart and what follows in a row is contiguous.
    pub fn is_row_of(&self, operand: usize) -> bool {
        self.stride(operand) == 1 && self.matmul.m.iter().any(|dim| dim.strides[operand] != 0)
    }

    /// Loads `operand`, stored as `elem` at `base`, for this vector.
    pub fn load(&self, e: &mut Emitter, base: Val, elem: Elem, operand: usize) -> Val {
        let offset = self.offset(e, operand);
        let at = e.at(base, elem, offset);
        e.load_strided(at, elem, self.stride(operand), self.mask)
    }

    /// Stores this vector to `operand`.
    pub fn store(&self, e: &mut Emitter, value: Val, base: Val, elem: Elem, operand: usize) {
        let offset = self.offset(e, operand);
        let at = e.at(base, elem, offset);
        e.store_strided(value, at, elem, self.stride(operand), self.mask);
    }
}

impl Matmul {
    /// Whether the normal form has the operands the other way round.
    pub fn exchanges(&self) -> bool {
        let unit = |dims: &[Dim]| dims.iter().any(|dim| dim.strides[OUT] == 1 && dim.size > 1);
        unit(&self.m) && !unit(&self.n)
    }

    /// The same product, dims merged, with the result's unit stride among the columns if it is among the rows.
    pub fn normal(&self) -> Matmul {
        let mut normal = self.clone();
        if self.exchanges() {
            std::mem::swap(&mut normal.m, &mut normal.n);
            std::mem::swap(&mut normal.lhs, &mut normal.rhs);
            for dims in [&mut normal.batch, &mut normal.m, &mut normal.n, &mut normal.k] {
                dims.iter_mut().for_each(|dim| dim.strides.swap(LHS, RHS));
            }
        }
        let operands = [&self.batch, &self.m, &self.n, &self.k]
            .iter()
            .find_map(|dims| dims.first())
            .map_or(3, |dim| dim.strides.len());
        normal.batch = merge(&normal.batch);
        normal.m = merge(&normal.m);
        normal.n = merge(&normal.n);
        normal.k = merge(&normal.k);
        // Vectors run along the last columns: those that are contiguous in the result.
        if let Some(place) = normal.n.iter().position(|dim| dim.strides[OUT] == 1) {
            let inner = normal.n.remove(place);
            normal.n.push(inner);
        }
        for dims in [&mut normal.n, &mut normal.k] {
            if dims.is_empty() {
                dims.push(Dim::new(1, &vec![0; operands]));
            }
        }
        normal
    }

    /// The columns: outer dims, and the innermost one, which vectors run along.
    fn columns(&self) -> (&[Dim], &Dim) {
        tiling::split_last(&self.n)
    }

    fn depth(&self) -> (&[Dim], &Dim) {
        tiling::split_last(&self.k)
    }
}

/// The buffers of a product.
#[derive(Clone, Copy, Debug)]
pub struct Buffers {
    pub lhs: Val,
    pub rhs: Val,
    /// [`Tiling::workspace_bytes`].
    pub workspace: Val,
}

/// The sizes of a product, for names and tests: batch, rows, columns, depth.
pub fn extents(matmul: &Matmul) -> [u64; 4] {
    let count = |dims: &[Dim]| sizes(dims).iter().product();
    [count(&matmul.batch), count(&matmul.m), count(&matmul.n), count(&matmul.k)]
}
