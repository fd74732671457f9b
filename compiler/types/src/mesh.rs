//! The mesh: ranks as points of a grid of named axes, and the region of a tensor that each of them holds.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{Dim, MAX_RANKS, Name, TensorType};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Axis {
    pub name: Name,
    pub size: usize,
}

/// Row-major: the last axis changes fastest from rank to rank. Axes of size 1 may be listed.
///
/// A dotted axis is a sub-axis: `cp.ring` and `cp.ulysses` are parts of `cp`, and `cp` names both, major first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mesh {
    pub axes: Vec<Axis>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MeshError {
    #[error("mesh axis `{0}` has size 0")]
    Empty(Name),
    #[error("mesh axis `{0}` is named twice")]
    Twice(Name),
    #[error("{0} = {1} ranks, and a mesh has at most {MAX_RANKS}")]
    TooMany(String, u128),
}

impl Mesh {
    pub fn new(axes: impl IntoIterator<Item = (impl Into<Name>, usize)>) -> Result<Self, MeshError> {
        let mut mesh = Self::default();
        for (name, size) in axes {
            let name = name.into();
            if size == 0 {
                return Err(MeshError::Empty(name));
            }
            if mesh.position(&name).is_some() {
                return Err(MeshError::Twice(name));
            }
            mesh.axes.push(Axis { name, size });
        }
        if mesh.world() > MAX_RANKS {
            let axes: Vec<String> =
                mesh.axes.iter().filter(|a| a.size > 1).map(|a| format!("{} {}", a.name, a.size)).collect();
            let ranks = mesh.axes.iter().fold(1u128, |n, a| n.saturating_mul(a.size as u128));
            return Err(MeshError::TooMany(axes.join(" * "), ranks));
        }
        Ok(mesh)
    }

    /// Number of ranks. Saturates; [`Mesh::new`] holds it to [`MAX_RANKS`].
    pub fn world(&self) -> usize {
        self.axes.iter().fold(1, |n, a| n.saturating_mul(a.size))
    }

    pub fn position(&self, axis: &str) -> Option<usize> {
        self.axes.iter().position(|a| a.name == *axis)
    }

    /// Size of an axis; 1 for an axis the mesh does not have.
    pub fn size(&self, axis: &str) -> usize {
        self.position(axis).map_or(1, |i| self.axes[i].size)
    }

    pub fn coordinates(&self, rank: usize) -> SmallVec<[usize; 6]> {
        let mut rest = rank;
        let mut out: SmallVec<[usize; 6]> = SmallVec::from_elem(0, self.axes.len());
        for (i, axis) in self.axes.iter().enumerate().rev() {
            out[i] = rest % axis.size;
            rest /= axis.size;
        }
        out
    }

    pub fn rank(&self, coordinates: &[usize]) -> usize {
        self.axes.iter().zip(coordinates).fold(0, |rank, (axis, c)| rank * axis.size + c)
    }

    /// The axes that `name` stands for, major first: itself, or its sub-axes; empty if the mesh has neither.
    pub fn parts(&self, name: &str) -> SmallVec<[Name; 2]> {
        let is_part =
            |axis: &Name| axis.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.axes.iter().filter(|a| is_part(&a.name)).map(|a| a.name.clone()).collect()
    }

    /// Number of ranks that differ in these axes alone.
    pub fn group(&self, axes: &[Name]) -> usize {
        axes.iter().fold(1, |n, a| n.saturating_mul(self.size(a)))
    }

    /// Sizes of the blocks of a dim cut by `axes`: the dim itself, then a block of each further axis. Each cut is in
    /// ceil blocks of the block before it, so that ranks which differ in the minor axes alone share a block.
    pub fn blocks(&self, size: usize, axes: &[Name]) -> SmallVec<[usize; 4]> {
        let mut blocks: SmallVec<[usize; 4]> = SmallVec::from_slice(&[size]);
        for axis in axes {
            let block = blocks[blocks.len() - 1].div_ceil(self.size(axis));
            blocks.push(block);
        }
        blocks
    }

    /// What each rank reserves of a tensor cut as `cuts` says (one entry a dim, or none for a whole tensor).
    pub fn local(&self, ty: &TensorType, cuts: &[Cut]) -> TensorType {
        let mut ty = ty.clone();
        for (dim, cut) in ty.dims.iter_mut().zip(cuts) {
            dim.size = *self.blocks(dim.size, &cut.axes).last().unwrap_or(&dim.size);
        }
        ty
    }

    /// What the rank at `coordinates` holds of a tensor with `dims`, cut as `cuts` says (one entry a dim).
    /// Blocks may be short or empty at the end of a dim, or of the block around them.
    pub fn region(&self, coordinates: &[usize], dims: &[Dim], cuts: &[Cut]) -> Region {
        let mut region = Region::default();
        for (i, dim) in dims.iter().enumerate() {
            let (mut start, mut size) = (0, dim.size);
            let axes = cuts.get(i).map_or(&[][..], |c| &c.axes);
            let blocks = self.blocks(dim.size, axes);
            for (axis, block) in axes.iter().zip(&blocks[1..]) {
                let at = self.position(axis).and_then(|p| coordinates.get(p)).copied().unwrap_or(0);
                let skipped = (at * block).min(size);
                start += skipped;
                size = (size - skipped).min(*block);
            }
            region.offset.push(start);
            region.size.push(size);
        }
        region
    }
}

/// The mesh axes that cut one dim, major first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cut {
    pub axes: SmallVec<[Name; 2]>,
}

/// A box of a logical tensor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    pub offset: SmallVec<[usize; 4]>,
    pub size: SmallVec<[usize; 4]>,
}

impl Region {
    pub fn elements(&self) -> usize {
        self.size.iter().product()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_coordinates_agree() {
        let mesh = Mesh::new([("pp", 2), ("dp", 1), ("fsdp", 3), ("tp", 4)]).expect("a mesh");
        assert_eq!(mesh.world(), 24);
        for rank in 0..24 {
            assert_eq!(mesh.rank(&mesh.coordinates(rank)), rank);
        }
        assert_eq!(mesh.coordinates(1).as_slice(), &[0, 0, 0, 1]);
    }

    #[test]
    fn a_mesh_has_a_limit() {
        let error = |axes: &[(&str, usize)]| Mesh::new(axes.iter().copied()).expect_err("too many").to_string();
        assert!(Mesh::new([("dp", 1 << 10), ("tp", 1 << 10)]).is_ok());
        assert_eq!(error(&[("dp", 2_000_000)]), "dp 2000000 = 2000000 ranks, and a mesh has at most 1048576");
        // The product of these is 0 in 64 bits.
        let error = error(&[("dp", 1 << 32), ("pp", 1), ("tp", 1 << 32)]);
        assert_eq!(error, "dp 4294967296 * tp 4294967296 = 18446744073709551616 ranks, and a mesh has at most 1048576");
    }

    #[test]
    fn uneven_dims_are_cut_in_ceil_blocks() {
        let mesh = Mesh::new([("cp", 4)]).expect("a mesh");
        let cut = [Cut { axes: ["cp".into()].into_iter().collect() }];
        let held: Vec<_> = (0..4).map(|c| mesh.region(&[c], &[Dim::new("L", 9)], &cut).size[0]).collect();
        assert_eq!(held, [3, 3, 3, 0]);
    }

    #[test]
    fn cuts_nest() {
        let mesh = Mesh::new([("cp.ring", 2), ("cp.ulysses", 1), ("tp", 2)]).expect("a mesh");
        assert_eq!(mesh.parts("cp").as_slice(), &["cp.ring", "cp.ulysses"]);
        let dims = [Dim::new("L", 9)];
        let held = |axes: &[&str]| -> Vec<(usize, usize)> {
            let cut = [Cut { axes: axes.iter().map(|a| Name::new(a)).collect() }];
            let of = |rank| mesh.region(&mesh.coordinates(rank), &dims, &cut);
            (0..4).map(of).map(|r| (r.offset[0], r.size[0])).collect()
        };
        assert_eq!(held(&["cp.ring"]), [(0, 5), (0, 5), (5, 4), (5, 4)]);
        assert_eq!(held(&["cp.ring", "tp"]), [(0, 3), (3, 2), (5, 3), (8, 1)]);
    }
}
