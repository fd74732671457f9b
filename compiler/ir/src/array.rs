//! Values of the interpreter: a tensor type and its elements as f64, which holds every f32, bf16 and i32 exactly.

use smallvec::SmallVec;
use types::TensorType;

#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub ty: TensorType,
    pub data: Vec<f64>,
}

impl Array {
    pub fn new(ty: TensorType, data: Vec<f64>) -> Self {
        assert_eq!(ty.elements(), data.len(), "as many numbers as `{ty}` has elements");
        Self { ty, data }
    }

    pub fn zeros(ty: TensorType) -> Self {
        let n = ty.elements();
        Self { ty, data: vec![0.0; n] }
    }

    pub fn scalar(ty: TensorType, value: f64) -> Self {
        let n = ty.elements();
        Self { ty, data: vec![value; n] }
    }

    /// Fills a result of type `ty` from the elements of `args` at the same named index; missing dims broadcast.
    pub fn zip(ty: &TensorType, args: &[&Array], f: impl Fn(&[f64]) -> f64) -> Self {
        let strides: Vec<_> = args.iter().map(|a| strides_in(&a.ty, ty)).collect();
        let mut operands: SmallVec<[f64; 8]> = SmallVec::from_elem(0.0, args.len());
        let mut data = Vec::with_capacity(ty.elements());
        for_each_index(&ty.sizes(), |index| {
            for (k, arg) in args.iter().enumerate() {
                operands[k] = arg.data[dot(index, &strides[k])];
            }
            data.push(f(&operands));
        });
        Self { ty: ty.clone(), data }
    }

    /// Folds this array into a result of type `ty`, which lacks some of its dims.
    pub fn fold(&self, ty: &TensorType, start: f64, f: impl Fn(f64, f64) -> f64) -> Self {
        let strides = strides_in(ty, &self.ty);
        let mut out = Self::scalar(ty.clone(), start);
        let mut at = 0;
        for_each_index(&self.ty.sizes(), |index| {
            let slot = &mut out.data[dot(index, &strides)];
            *slot = f(*slot, self.data[at]);
            at += 1;
        });
        out
    }

    /// The element at `index`, one number for each dim.
    pub fn at(&self, index: &[usize]) -> f64 {
        self.data[dot(index, &self.ty.strides())]
    }
}

/// For each dim of `space`, the stride of the same-named dim in `ty`; 0 where `ty` lacks it.
pub fn strides_in(ty: &TensorType, space: &TensorType) -> SmallVec<[usize; 4]> {
    let own = ty.strides();
    space.dims.iter().map(|d| ty.position(&d.name).map_or(0, |p| own[p])).collect()
}

pub fn dot(index: &[usize], strides: &[usize]) -> usize {
    index.iter().zip(strides).map(|(i, s)| i * s).sum()
}

/// Calls `f` with every index below `sizes`, the last changing fastest.
pub fn for_each_index(sizes: &[usize], mut f: impl FnMut(&[usize])) {
    if sizes.contains(&0) {
        return;
    }
    let mut index: SmallVec<[usize; 8]> = SmallVec::from_elem(0, sizes.len());
    loop {
        f(&index);
        let mut d = sizes.len();
        loop {
            if d == 0 {
                return;
            }
            d -= 1;
            index[d] += 1;
            if index[d] < sizes[d] {
                break;
            }
            index[d] = 0;
        }
    }
}
