//! The mesh: ranks as points of a grid of named axes, and the region of a tensor that each of them holds.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{Dim, Name};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Axis {
    pub name: Name,
    pub size: usize,
}

/// Row-major: the last axis changes fastest from rank to rank. Axes of size 1 may be listed.
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
        Ok(mesh)
    }

    /// Number of ranks.
    pub fn world(&self) -> usize {
        self.axes.iter().map(|a| a.size).product()
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

    /// What the rank at `coordinates` holds of a tensor with `dims`, cut as `cuts` says (one entry a dim).
    /// Blocks are ceil(size / parts); the last ones may be short or empty.
    pub fn region(&self, coordinates: &[usize], dims: &[Dim], cuts: &[Cut]) -> Region {
        let mut region = Region::default();
        for (i, dim) in dims.iter().enumerate() {
            let (mut parts, mut index) = (1, 0);
            for axis in cuts.get(i).into_iter().flat_map(|c| &c.axes) {
                if let Some(p) = self.position(axis) {
                    parts *= self.axes[p].size;
                    index = index * self.axes[p].size + coordinates[p];
                }
            }
            let block = dim.size.div_ceil(parts);
            let start = (index * block).min(dim.size);
            region.offset.push(start);
            region.size.push(block.min(dim.size - start));
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
    fn uneven_dims_are_cut_in_ceil_blocks() {
        let mesh = Mesh::new([("cp", 4)]).expect("a mesh");
        let cut = [Cut { axes: ["cp".into()].into_iter().collect() }];
        let held: Vec<_> = (0..4).map(|c| mesh.region(&[c], &[Dim::new("L", 9)], &cut).size[0]).collect();
        assert_eq!(held, [3, 3, 3, 0]);
    }
}
