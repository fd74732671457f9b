//! Shares: which elements of a logical tensor one rank holds, where they lie in its buffer, and tensors made whole again.

use std::borrow::Cow;
use std::sync::Arc;

use plan::Layout;
use types::{DType, FileForm, Mesh, Region, TensorType};

use crate::convert::{ConvertError, convert_values};
use crate::finite::first_not_finite;

/// Values that are converted at a time.
const CHUNK: usize = 1 << 16;

/// A rank's part of a logical tensor, in a buffer of the capacity that every rank reserves. What a region that is
/// shorter leaves of the buffer is padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Of the whole logical tensor.
    ty: TensorType,
    /// Of the buffer.
    local: TensorType,
    region: Region,
    /// The file's tensor in which these elements lie otherwise, and its number among those of the form.
    form: Option<(Arc<FileForm>, usize)>,
}

/// Elements that are neighbours in the logical tensor and in the buffer alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Row-major index in the logical tensor.
    pub logical: usize,
    /// Row-major index in the buffer.
    pub local: usize,
    pub count: usize,
    /// Elements of the buffer between two of them: 1, unless a file has the axes in another order.
    pub step: usize,
}

/// How elements lie in the logical tensor and in the buffer, axis by axis, major first in the former.
struct Walk {
    logical: usize,
    local: usize,
    /// Sizes with the distances between neighbours in each.
    axes: Vec<(usize, usize, usize)>,
}

impl Share {
    pub fn new(mesh: &Mesh, coordinates: &[usize], ty: &TensorType, layout: &Layout) -> Self {
        let region = layout.region(mesh, coordinates, &ty.dims);
        Self { ty: ty.clone(), local: mesh.local(ty, &layout.cuts), region, form: None }
    }

    /// All of a tensor.
    pub fn whole(ty: &TensorType) -> Self {
        Self::new(&Mesh::default(), &[], ty, &Layout::whole())
    }

    /// The logical tensor's type.
    pub fn ty(&self) -> &TensorType {
        &self.ty
    }

    pub fn region(&self) -> &Region {
        &self.region
    }

    /// The same elements in another type.
    pub(crate) fn with_dtype(&self, dtype: DType) -> Self {
        Self { ty: self.ty.with_dtype(dtype), local: self.local.with_dtype(dtype), ..self.clone() }
    }

    /// The same elements as they lie in a tensor of a file that holds them in another form; None if it holds none of them.
    pub(crate) fn in_form(&self, form: &Arc<FileForm>, tensor: usize) -> Option<Self> {
        let held = |axis: usize| {
            let (from, size) = (self.region.offset[axis], self.region.size[axis]);
            (from..from + size).contains(&tensor)
        };
        let some = form.over.is_none_or(held) && self.region.elements() > 0;
        some.then(|| Self { form: Some((form.clone(), tensor)), ..self.clone() })
    }

    /// How many elements are held.
    pub(crate) fn elements(&self) -> usize {
        match &self.form {
            Some((form, _)) => form.axes.iter().map(|axis| self.region.size[axis.axis]).product(),
            None => self.region.elements(),
        }
    }

    /// The elements of the tensor that it is a share of.
    pub(crate) fn of_elements(&self) -> usize {
        self.form.as_ref().map_or(self.ty.elements(), |(form, _)| form.shape().iter().product())
    }

    /// Bytes of the buffer, its padding included.
    pub fn bytes(&self) -> usize {
        self.local.bytes()
    }

    /// Whether the buffer is the logical tensor, element for element.
    pub fn is_whole(&self) -> bool {
        self.form.is_none() && self.region.size == self.ty.sizes() && self.local.sizes() == self.region.size
    }

    pub fn is_padded(&self) -> bool {
        self.region.size != self.local.sizes()
    }

    /// The share in one slice across the first dim: what a rank holds of a sample of a batch.
    pub(crate) fn inner(&self) -> Self {
        let rest = |ty: &TensorType| TensorType::new(ty.dtype, ty.dims.iter().skip(1).cloned());
        let region = Region {
            offset: self.region.offset.iter().skip(1).copied().collect(),
            size: self.region.size.iter().skip(1).copied().collect(),
        };
        Self { ty: rest(&self.ty), local: rest(&self.local), region, form: None }
    }

    fn walk(&self) -> Walk {
        let (logical, local) = (self.ty.strides(), self.local.strides());
        let Some((form, tensor)) = &self.form else {
            let start = self.region.offset.iter().zip(&logical).map(|(at, stride)| at * stride).sum();
            let axes = (0..self.ty.rank()).map(|axis| (self.region.size[axis], logical[axis], local[axis])).collect();
            return Walk { logical: start, local: 0, axes };
        };
        let mut walk = Walk { logical: 0, local: 0, axes: Vec::with_capacity(form.axes.len()) };
        let mut stride = 1;
        for axis in form.axes.iter().rev() {
            walk.logical += (axis.at + self.region.offset[axis.axis]) * stride;
            walk.axes.insert(0, (self.region.size[axis.axis], stride, local[axis.axis]));
            stride *= axis.size;
        }
        if let Some(over) = form.over {
            walk.local = (tensor - self.region.offset[over]) * local[over];
        }
        walk
    }

    /// The elements held, in as few pieces as there are, in rising order.
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        let Walk { logical, local, mut axes } = self.walk();
        // Axes at the end that are held whole and without padding are of one piece with the axis before them.
        let (mut count, mut step) = (1, 1);
        while let Some((size, logical, local)) = axes.pop() {
            if size != 1 && count == 1 {
                step = local;
            }
            if size != 1 && (logical != count || local != count * step) {
                axes.push((size, logical, local));
                break;
            }
            count *= size;
        }
        let rows: usize = if count == 0 { 0 } else { axes.iter().map(|(size, ..)| size).product() };
        (0..rows).map(move |row| {
            let mut run = Run { logical, local, count, step };
            let mut rest = row;
            for (size, logical, local) in axes.iter().rev() {
                let at = rest % size;
                rest /= size;
                run.logical += at * logical;
                run.local += at * local;
            }
            run
        })
    }

    /// Takes this share out of the whole tensor's bytes; padding becomes zero.
    pub fn scatter(&self, whole: &[u8], buffer: &mut [u8]) {
        let size = self.ty.dtype.bytes();
        self.clear_padding(buffer);
        for run in self.runs() {
            let from = &whole[run.logical * size..][..run.count * size];
            buffer[run.local * size..][..run.count * size].copy_from_slice(from);
        }
    }

    /// Puts this share where it belongs in the whole tensor's bytes.
    pub fn gather(&self, buffer: &[u8], whole: &mut [u8]) {
        let size = self.ty.dtype.bytes();
        for run in self.runs() {
            let from = &buffer[run.local * size..][..run.count * size];
            whole[run.logical * size..][..run.count * size].copy_from_slice(from);
        }
    }

    /// Zero is a valid index into any table, and adds nothing to a sum.
    pub(crate) fn clear_padding(&self, buffer: &mut [u8]) {
        if self.is_padded() {
            buffer.fill(0);
        }
    }
}

/// The shares of a tensor that make it whole: of the ranks that hold the same elements, the lowest of `holders` alone.
pub fn owners(
    mesh: &Mesh,
    ty: &TensorType,
    layout: &Layout,
    holders: impl IntoIterator<Item = usize>,
) -> Vec<(usize, Share)> {
    let mut owners: Vec<(usize, Share)> = Vec::new();
    for rank in holders {
        let share = Share::new(mesh, &mesh.coordinates(rank), ty, layout);
        if share.region.elements() > 0 && owners.iter().all(|(_, s)| s.region.offset != share.region.offset) {
            owners.push((rank, share));
        }
    }
    owners
}

/// A logical tensor in the pieces that ranks hold of it. A file may hold it in another type than they do.
pub struct Pieces<'a> {
    pub name: &'a str,
    pub ty: &'a TensorType,
    /// Without replicas: see [`owners`].
    pub pieces: Vec<(Share, &'a [u8])>,
}

impl<'a> Pieces<'a> {
    /// A tensor in one piece.
    pub fn whole(name: &'a str, ty: &'a TensorType, bytes: &'a [u8]) -> Self {
        Self { name, ty, pieces: vec![(Share::whole(ty), bytes)] }
    }

    /// Whether no piece is missing: those of other processes are.
    pub fn is_complete(&self) -> bool {
        self.pieces.iter().map(|(share, _)| share.elements()).sum::<usize>() == self.ty.elements()
    }

    /// The bytes of the whole tensor in the type that a file holds it in. Values that this type does not reach are refused.
    pub(crate) fn stored(&self) -> Result<Cow<'a, [u8]>, ConvertError> {
        if self.pieces.iter().all(|(share, _)| share.ty.dtype == self.ty.dtype && share.form.is_none()) {
            return Ok(self.bytes());
        }
        let mut whole = vec![0; self.ty.bytes()];
        let size = self.ty.dtype.bytes();
        self.each_run(|at, bytes| {
            whole[at * size..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        })?;
        Ok(Cow::Owned(whole))
    }

    /// Calls `take` with the pieces in the type that a file holds, each with the element of the tensor that it begins at.
    pub(crate) fn each_run<E: From<ConvertError>>(
        &self,
        mut take: impl FnMut(usize, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut converted, mut gathered) = (Vec::new(), Vec::new());
        for (share, bytes) in &self.pieces {
            let (from, to) = (share.ty.dtype, self.ty.dtype);
            for run in share.runs() {
                let piece = if run.step == 1 {
                    &bytes[run.local * from.bytes()..][..run.count * from.bytes()]
                } else {
                    gathered.clear();
                    let element = |i: usize| &bytes[(run.local + i * run.step) * from.bytes()..][..from.bytes()];
                    (0..run.count).for_each(|i| gathered.extend_from_slice(element(i)));
                    &gathered[..]
                };
                if from == to {
                    take(run.logical, piece)?;
                    continue;
                }
                for (i, piece) in piece.chunks(CHUNK * from.bytes()).enumerate() {
                    let first = run.logical + i * CHUNK;
                    converted.resize(piece.len() / from.bytes() * to.bytes(), 0);
                    convert_values(from, piece, to, &mut converted)?;
                    if let Some(at) = first_not_finite(to, &converted) {
                        return Err(ConvertError::Overflow(first + at, to).into());
                    }
                    take(first, &converted)?;
                }
            }
        }
        Ok(())
    }

    /// The bytes of the whole tensor as it is held, row-major; those of missing pieces are zero.
    pub fn bytes(&self) -> Cow<'a, [u8]> {
        if let [(share, bytes)] = self.pieces.as_slice()
            && share.is_whole()
        {
            return Cow::Borrowed(&bytes[..share.bytes()]);
        }
        let mut whole = vec![0; self.ty.bytes()];
        self.pieces.iter().for_each(|(share, bytes)| share.gather(bytes, &mut whole));
        Cow::Owned(whole)
    }
}

/// A copy of pieces, to be written while the tensors themselves change.
pub struct Snapshot {
    tensors: Vec<Copied>,
}

/// A tensor's name, type and pieces.
type Copied = (String, TensorType, Vec<(Share, Vec<u8>)>);

impl Snapshot {
    pub fn of(tensors: &[Pieces<'_>]) -> Self {
        let copy = |(share, bytes): &(Share, &[u8])| (share.clone(), bytes.to_vec());
        let tensor = |t: &Pieces<'_>| (t.name.to_string(), t.ty.clone(), t.pieces.iter().map(copy).collect());
        Self { tensors: tensors.iter().map(tensor).collect() }
    }

    pub fn pieces(&self) -> Vec<Pieces<'_>> {
        let tensors = self.tensors.iter().map(|(name, ty, pieces)| {
            let pieces = pieces.iter().map(|(share, bytes)| (share.clone(), bytes.as_slice())).collect();
            Pieces { name, ty, pieces }
        });
        tensors.collect()
    }
}

#[cfg(test)]
mod tests {
    use types::FileAxis;

    use super::*;

    #[test]
    fn runs_are_as_long_as_they_can_be() {
        let mesh = Mesh::new([("cp", 2), ("tp", 2)]).expect("a mesh");
        let check = |ty: &str, cuts: &[&str], rank: usize, expect: &[(usize, usize, usize)]| {
            let cut = |axis: &&str| types::Cut {
                axes: Some(*axis).filter(|a| !a.is_empty()).map(Into::into).into_iter().collect(),
            };
            let layout = Layout { cuts: cuts.iter().map(cut).collect() };
            let share = Share::new(&mesh, &mesh.coordinates(rank), &ty.parse().expect("a type"), &layout);
            assert_eq!(share.runs().map(|r| (r.logical, r.local, r.count)).collect::<Vec<_>>(), expect, "{ty}");
        };
        check("f32[]", &[], 3, &[(0, 0, 1)]);
        check("f32[A:4, B:6]", &[], 1, &[(0, 0, 24)]);
        check("f32[A:4, B:6]", &["cp", ""], 2, &[(12, 0, 12)]);
        check("f32[A:2, B:6]", &["", "tp"], 1, &[(3, 0, 3), (9, 3, 3)]);
        check("f32[A:3, B:3, C:2]", &["cp", "tp", ""], 3, &[(16, 0, 2)]);
        check("f32[A:3, B:3, C:2]", &["cp", "tp", ""], 0, &[(0, 0, 4), (6, 4, 4)]);
        // A short last block leaves padding in each row.
        check("f32[A:2, B:3]", &["", "tp"], 1, &[(2, 0, 1), (5, 2, 1)]);
        check("f32[A:2, B:1]", &["", "tp"], 1, &[]);
    }

    /// Every element of a share lies in a file's tensor where the form says, whatever the mesh.
    #[test]
    fn forms_are_walked_in_the_order_of_the_file() {
        let mesh = Mesh::new([("cp", 2), ("tp", 2)]).expect("a mesh");
        let ty: TensorType = "f32[E:3, I:3, D:2]".parse().expect("a type");
        let axis = |axis, at, size| FileAxis { axis, at, size };
        let form = |name: &str, axes: &[FileAxis], over| {
            Arc::new(FileForm { name: name.into(), axes: axes.to_vec(), over, saved: false })
        };
        let forms = [
            form("e.{E}.w", &[axis(1, 0, 3), axis(2, 0, 2)], Some(0)),
            form("fused", &[axis(0, 0, 3), axis(1, 3, 6), axis(2, 0, 2)], None),
            form("turned", &[axis(0, 0, 3), axis(2, 0, 2), axis(1, 3, 6)], None),
            form("turned.{E}", &[axis(2, 1, 4), axis(1, 0, 3)], Some(0)),
        ];
        let cuts = ["", "tp", "cp"].map(|axis| types::Cut {
            axes: Some(axis).filter(|a| !a.is_empty()).map(Into::into).into_iter().collect(),
        });
        for layout in [Layout::whole(), Layout { cuts: cuts.into() }] {
            for (form, rank) in forms.iter().flat_map(|form| (0..4).map(move |rank| (form, rank))) {
                let share = Share::new(&mesh, &mesh.coordinates(rank), &ty, &layout);
                // By place in the buffer, the index in the parameter.
                let of = |r: Run| (0..r.count).map(move |i| (r.local + i, r.logical + i));
                let plain: std::collections::BTreeMap<_, _> = share.runs().flat_map(of).collect();
                let mut found = std::collections::BTreeMap::new();
                for tensor in 0..form.count(&ty) {
                    let mut before = None;
                    for run in share.in_form(form, tensor).iter().flat_map(|s| s.runs().collect::<Vec<_>>()) {
                        assert!(before < Some(run.logical), "rising");
                        before = Some(run.logical + run.count - 1);
                        for i in 0..run.count {
                            // Back from the element of the file's tensor to the parameter's.
                            let (mut rest, mut index) = (run.logical + i, [tensor; 3]);
                            for axis in form.axes.iter().rev() {
                                index[axis.axis] = rest % axis.size - axis.at;
                                rest /= axis.size;
                            }
                            found.insert(run.local + i * run.step, (index[0] * 3 + index[1]) * 2 + index[2]);
                        }
                    }
                }
                assert_eq!(found, plain, "{} rank {rank}", form.name);
            }
        }
    }
}
