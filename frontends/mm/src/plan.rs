//! Where a model runs: which axes are cut over which axes of the mesh; and how often the programs of a task run.

use crate::Size;

/// Where a model runs; flags of the command line go over it.
#[derive(Debug)]
pub struct Plan;

/// The order of micro-batches in a pipeline.
#[derive(Clone, Copy, Debug)]
pub struct Schedule;

/// An axis of the mesh, or a list of them.
pub trait MeshAxes {}

impl MeshAxes for &str {}

impl<const N: usize> MeshAxes for [&str; N] {}

impl Plan {
    /// Cuts an axis over a mesh axis wherever it occurs.
    pub fn shard(&mut self, _dim: Size, _axis: &str) -> &mut Self {
        self
    }

    /// Cuts the stack of this length into stages.
    pub fn pipeline(&mut self, _dim: Size, _axis: &str, _schedule: Schedule) -> &mut Self {
        self
    }

    /// Keeps parameters, gradients and the optimiser's state in parts over these axes; parameters are gathered when they are
    /// used. Said once.
    pub fn fsdp(&mut self, _axes: impl MeshAxes) -> &mut Self {
        self
    }

    /// `none`, `full` or `auto`.
    pub fn recompute(&mut self, _what: &str) -> &mut Self {
        self
    }

    /// `none`, `activations`, `optimizer`, `parameters` or `auto`.
    pub fn offload(&mut self, _what: &str) -> &mut Self {
        self
    }

    /// `autocast` or `pure`: what is computed in bf16.
    pub fn precision(&mut self, _what: &str) -> &mut Self {
        self
    }
}

/// The programs of a task, one after the other. They share parameters and states.
#[derive(Debug)]
pub struct Run;

impl Run {
    /// Runs a function as a program this many times.
    pub fn repeat<F>(&mut self, _program: F, _times: i64) -> &mut Self {
        self
    }

    /// Runs a function of a model alone when the parameters are there, before other programs, and again when they have
    /// changed. The fields of its result are states that programs after it read: `folded: State![..]`.
    pub fn prepare<F>(&mut self, _program: F) -> &mut Self {
        self
    }

    /// A program that runs when the host asks for it: `mmrun --programs`.
    pub fn offer<F>(&mut self, _program: F) -> &mut Self {
        self
    }
}
