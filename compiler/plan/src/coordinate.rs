//! Numbers and regions as functions of a rank's mesh coordinates, so that ranks which differ in nothing else share one program.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use types::{Cut, Dim, Mesh, Name, Region};

/// `min(max(base + sum(scale * coordinate), least), most)`: offsets, lengths of ceil blocks, peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affine {
    pub base: i64,
    pub terms: SmallVec<[Term; 2]>,
    pub least: i64,
    pub most: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    pub axis: Name,
    pub scale: i64,
}

impl Affine {
    pub fn constant(value: i64) -> Self {
        Self { base: value, terms: SmallVec::new(), least: i64::MIN, most: i64::MAX }
    }

    /// The value at `coordinates`; an axis that the mesh lacks counts as 0. Saturates instead of overflowing.
    pub fn at(&self, mesh: &Mesh, coordinates: &[usize]) -> i64 {
        let mut value = self.base;
        for term in &self.terms {
            let c = mesh.position(&term.axis).and_then(|p| coordinates.get(p)).copied().unwrap_or(0);
            value = value.saturating_add(term.scale.saturating_mul(c as i64));
        }
        // Not `clamp`, which panics where a damaged plan has `least > most`.
        value.max(self.least).min(self.most)
    }
}

impl From<i64> for Affine {
    fn from(value: i64) -> Self {
        Self::constant(value)
    }
}

/// How a logical tensor is cut over the mesh: one entry a dim, or none at all for a tensor that every rank holds whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    pub cuts: Vec<Cut>,
}

impl Layout {
    pub const fn whole() -> Self {
        Self { cuts: Vec::new() }
    }

    pub fn is_whole(&self) -> bool {
        self.cuts.iter().all(|c| c.axes.is_empty())
    }

    pub fn region(&self, mesh: &Mesh, coordinates: &[usize], dims: &[Dim]) -> Region {
        mesh.region(coordinates, dims, &self.cuts)
    }
}

/// A set of ranks: those whose coordinates have the given values; no condition means all ranks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranks {
    pub at: Vec<(Name, usize)>,
}

impl Ranks {
    pub const fn all() -> Self {
        Self { at: Vec::new() }
    }

    pub fn contain(&self, mesh: &Mesh, coordinates: &[usize]) -> bool {
        self.at
            .iter()
            .all(|(axis, value)| mesh.position(axis).and_then(|p| coordinates.get(p)).copied().unwrap_or(0) == *value)
    }
}
