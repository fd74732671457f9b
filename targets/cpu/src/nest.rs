//! Loop dims with a stride for each operand, their merging, and addresses inside them.

use crate::emit::{Elem, Emitter, Ty, Val};

/// One dim of an iteration space.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dim {
    pub size: u64,
    /// Elements from one index to the next, for each operand; 0 where the operand does not have the dim.
    pub strides: Vec<i64>,
}

impl Dim {
    pub fn new(size: u64, strides: &[i64]) -> Dim {
        Dim { size, strides: strides.to_vec() }
    }
}

/// The number of points in a box.
pub fn points(dims: &[Dim]) -> u64 {
    dims.iter().map(|dim| dim.size).product()
}

/// Drops dims of size 1 and joins neighbours that every operand walks as one.
pub fn merge(dims: &[Dim]) -> Vec<Dim> {
    let mut merged: Vec<Dim> = Vec::new();
    for dim in dims.iter().filter(|dim| dim.size != 1) {
        match merged.last_mut() {
            Some(last) if joins(last, dim) => {
                last.size *= dim.size;
                last.strides.clone_from(&dim.strides);
            }
            _ => merged.push(dim.clone()),
        }
    }
    merged
}

fn joins(outer: &Dim, inner: &Dim) -> bool {
    outer.strides.iter().zip(&inner.strides).all(|(outer, step)| *outer == inner.size as i64 * step)
}

/// The sizes of `dims`.
pub fn sizes(dims: &[Dim]) -> Vec<u64> {
    dims.iter().map(|dim| dim.size).collect()
}

impl Emitter {
    /// The offset of `operand` at the coordinates `at`, in elements.
    pub fn offset(&mut self, dims: &[Dim], at: &[Val], operand: usize) -> Val {
        let mut sum = self.i64(0);
        for (dim, &index) in dims.iter().zip(at) {
            let stride = self.i64(dim.strides[operand]);
            let step = self.mul(index, stride);
            sum = self.add(sum, step);
        }
        sum
    }

    /// The offset of `operand` at the row-major linear `index`.
    pub fn offset_linear(&mut self, dims: &[Dim], index: Val, operand: usize) -> Val {
        let at = self.unravel(index, &sizes(dims));
        self.offset(dims, &at, operand)
    }

    /// Loads a full vector of elements `stride` apart, floats as `f32`; lanes outside `mask` are zero.
    pub fn load_strided(&mut self, at: Val, elem: Elem, stride: i64, mask: Option<Val>) -> Val {
        let lanes = self.lanes();
        match stride {
            1 => self.load_wide(at, elem, lanes, mask),
            0 => {
                let one = self.load_wide(at, elem, 0, None);
                self.broadcast(one, lanes)
            }
            _ => {
                let pointers = self.strided_pointers(at, elem, stride);
                let mask = mask.unwrap_or_else(|| self.int(Ty::vector(Elem::I1, lanes), 1));
                self.gather(pointers, elem, mask)
            }
        }
    }

    /// Stores a full vector to elements `stride` apart, in the lanes of `mask`.
    pub fn store_strided(&mut self, value: Val, at: Val, elem: Elem, stride: i64, mask: Option<Val>) {
        if stride == 1 {
            return self.store_narrow(value, at, elem, mask);
        }
        let pointers = self.strided_pointers(at, elem, stride);
        let mask = mask.unwrap_or_else(|| self.int(Ty::vector(Elem::I1, value.ty.lanes), 1));
        self.scatter(value, pointers, elem, mask);
    }

    fn strided_pointers(&mut self, at: Val, elem: Elem, stride: i64) -> Val {
        let ty = Ty::vector(Elem::I64, self.lanes());
        let steps = self.steps(ty);
        let stride = self.int(ty, stride);
        let offsets = self.mul(steps, stride);
        self.pointers(at, elem, offsets)
    }
}
