//! The header: what was compiled, and for which machine and mesh.

use serde::{Deserialize, Serialize};
use types::{Config, DType, Mesh, Name};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// File name of the model, without its folder.
    pub model: Name,
    pub preset: Name,
    pub task: Name,
    /// `cpu`, `ascend-910b3`, `none`.
    pub target: Name,
    /// The processor the kernels were made for, e.g. `znver4`, and the features that the machine must have.
    pub device: Name,
    pub features: Vec<Name>,
    /// The working type that the precision pass chose.
    pub dtype: DType,
    /// Seed of the initialisers and of the draws.
    pub seed: u64,
    /// Version of the compiler.
    pub compiler: Name,
    /// Axes in the order pp, dp, fsdp, cp, tp, those of size 1 included.
    pub mesh: Mesh,
    /// The step from which on the learning rate keeps its last value; 0 if its schedule has no end.
    pub schedule_end: u64,
    /// Version of the calling convention of the kernels: see [`crate::KERNEL_ABI`].
    pub kernel_abi: u32,
    /// What configs of the classes that the model knows must say; empty if it declares none.
    pub configs: Vec<Config>,
}

impl Header {
    pub fn world(&self) -> usize {
        self.mesh.world()
    }
}
