//! Numbers of feeds that are not finite, found as the feeds are read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use half::{bf16, f16};
use types::{DType, TensorType};

use crate::Share;

/// What was found; copies, which read for other ranks, share it.
#[derive(Clone, Default)]
pub struct Watch(Arc<Mutex<Found>>);

/// A record's name, and a tensor's.
type Tensor = (String, String);

#[derive(Default)]
struct Found {
    /// By step; of a tensor that ranks read in parts, the first element in it.
    new: BTreeMap<(u64, Tensor), Strange>,
    /// What was told already.
    told: BTreeSet<Tensor>,
}

impl Watch {
    /// What the feeds of a step and of those before it hold, a line each; each tensor of a record is told once.
    pub fn told(&self, step: u64) -> Vec<String> {
        let found = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = Vec::new();
        while let Some(entry) = found.new.first_entry().filter(|entry| entry.key().0 <= step) {
            let ((_, tensor), strange) = entry.remove_entry();
            if found.told.insert(tensor.clone()) {
                lines.push(format!("{}: `{}`: {strange}", tensor.0, tensor.1));
            }
        }
        lines
    }

    /// Looks through a share of a batch; `tensor` names the record of a row, and the feed's tensor in it.
    pub(crate) fn look(&self, step: u64, share: &Share, bytes: &[u8], tensor: impl FnOnce(usize) -> (String, String)) {
        let Some(Strange { value, at }) = not_finite(share, bytes) else { return };
        let (row, within) = at.split_first().map_or((0, &[][..]), |(row, within)| (*row, within));
        self.note(step, tensor(row), Strange { value, at: within.to_vec() });
    }

    /// Looks through a whole tensor of a record.
    pub(crate) fn look_at(&self, step: u64, ty: &TensorType, bytes: &[u8], tensor: impl FnOnce() -> (String, String)) {
        if let Some(strange) = not_finite(&Share::whole(ty), bytes) {
            self.note(step, tensor(), strange);
        }
    }

    fn note(&self, step: u64, tensor: Tensor, strange: Strange) {
        let found = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = found.new.entry((step, tensor)).or_insert(strange.clone());
        if strange.at < first.at {
            *first = strange;
        }
    }
}

/// An element that is not finite, and where in its tensor it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Strange {
    pub value: f64,
    pub at: Vec<usize>,
}

impl fmt::Display for Strange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value, at } = self;
        if at.is_empty() { write!(f, "it is {value}") } else { write!(f, "element {at:?} is {value}") }
    }
}

/// The first element of a share that is not finite, with its place in the whole tensor.
pub fn not_finite(share: &Share, bytes: &[u8]) -> Option<Strange> {
    let (ty, size) = (share.ty(), share.ty().dtype.bytes());
    share.runs().find_map(|run| {
        let (at, value) = first(ty.dtype, &bytes[run.local * size..][..run.count * size])?;
        Some(Strange { value, at: place(ty, run.logical + at) })
    })
}

/// Where the element of this row-major number stands.
fn place(ty: &TensorType, number: usize) -> Vec<usize> {
    let strides = ty.strides();
    ty.dims.iter().zip(strides).map(|(dim, stride)| number / stride.max(1) % dim.size.max(1)).collect()
}

fn first(dtype: DType, bytes: &[u8]) -> Option<(usize, f64)> {
    match dtype {
        DType::F32 | DType::Work => scan::<4>(bytes, |b| f64::from(f32::from_le_bytes(b))),
        DType::BF16 => scan::<2>(bytes, |b| bf16::from_le_bytes(b).to_f64()),
        DType::F16 => scan::<2>(bytes, |b| f16::from_le_bytes(b).to_f64()),
        DType::F64 => scan::<8>(bytes, f64::from_le_bytes),
        DType::I64 | DType::I32 | DType::Bool => None,
    }
}

fn scan<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f64) -> Option<(usize, f64)> {
    let (elements, _) = bytes.as_chunks::<N>();
    elements.iter().enumerate().map(|(i, b)| (i, read(*b))).find(|(_, value)| !value.is_finite())
}

#[cfg(test)]
mod tests {
    use types::Mesh;

    use super::*;

    #[test]
    fn places_are_those_of_the_whole_tensor() {
        let mesh = Mesh::new([("dp", 2)]).expect("a mesh");
        let cut = |axes: &[&str]| types::Cut { axes: axes.iter().map(|a| (*a).into()).collect() };
        let layout = plan::Layout { cuts: [cut(&[]), cut(&["dp"]), cut(&[])].into_iter().collect() };
        let ty: TensorType = "f32[B:2, T:4, C:3]".parse().expect("a type");
        for (rank, number, place) in [(0, 5, vec![0, 1, 2]), (1, 4, vec![0, 3, 1]), (1, 6, vec![1, 2, 0])] {
            let share = Share::new(&mesh, &mesh.coordinates(rank), &ty, &layout);
            let mut values = [1.0f32; 12];
            values[number] = f32::NEG_INFINITY;
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            assert_eq!(not_finite(&share, &bytes), Some(Strange { value: f64::NEG_INFINITY, at: place }));
        }
    }

    #[test]
    fn each_type_has_its_numbers_that_are_not_finite() {
        let two = |bytes: [u8; 2]| [1, 0, bytes[0], bytes[1]];
        let found = |dtype, bytes: &[u8]| first(dtype, bytes).map(|(at, _)| at);
        assert_eq!(found(DType::BF16, &two(bf16::NAN.to_le_bytes())), Some(1));
        assert_eq!(found(DType::F16, &two(f16::INFINITY.to_le_bytes())), Some(1));
        // The largest bf16 is no f16, and finite.
        assert_eq!(found(DType::BF16, &two(bf16::MAX.to_le_bytes())), None);
        assert_eq!(found(DType::F64, &f64::NAN.to_le_bytes()), Some(0));
        assert_eq!(found(DType::I32, &[255; 4]), None);
    }
}
