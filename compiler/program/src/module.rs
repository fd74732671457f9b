//! A module at the program level: the programs of a model, each with one body for each rank of its pipeline.

use std::sync::Arc;

use plan::{Emit, Feed, Kernel, Manifest, Residency, ResidencyId};
use types::{Mesh, Name, Runs};

use crate::RankProgram;

#[derive(Clone, Debug, PartialEq)]
pub struct RankModule {
    pub mesh: Mesh,
    /// Bytes to which every buffer is aligned.
    pub alignment: u64,
    /// Whether ranks differ by their place in a pipeline: the pass `stages` has run.
    pub is_pipeline: bool,
    pub kernels: Arc<[Kernel]>,
    /// Parameters and states, with the buffer of each on a rank that holds all.
    pub manifest: Manifest,
    pub residencies: Vec<Residency>,
    pub programs: Vec<Program>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    pub name: Name,
    pub runs: Runs,
    pub residency: Option<ResidencyId>,
    pub feeds: Vec<Feed>,
    pub emits: Vec<Emit>,
    /// Collectives with lesser ids are the same on all ranks that take part; others are each rank's own.
    pub collectives: u32,
    /// Of the ranks' places, those that all have; each rank's own follow.
    pub places: usize,
    /// One, or one for each rank of the pipeline. All have the same persistent buffers.
    pub ranks: Vec<RankProgram>,
}

impl RankModule {
    pub fn rank_programs(&self) -> impl Iterator<Item = &RankProgram> {
        self.programs.iter().flat_map(|p| &p.ranks)
    }

    pub fn rank_programs_mut(&mut self) -> impl Iterator<Item = &mut RankProgram> {
        self.programs.iter_mut().flat_map(|p| &mut p.ranks)
    }
}
