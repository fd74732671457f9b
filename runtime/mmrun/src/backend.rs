//! Backends: what runs the kernels of a plan, by the family of its target.

mod ascend;
mod cpu;

use std::sync::Arc;
use std::time::Duration;

use comm::Communicator;
use plan::{Header, PlanFile, Verified};
use runtime_core::{Executor, Options};

use crate::failure::Failure;

/// Every backend. A target's family is its name up to the first `-`: `ascend` of `ascend-910b3`.
const BACKENDS: &[Backend] = &[cpu::BACKEND, ascend::BACKEND];

/// The runtime's half of a target.
pub struct Backend {
    family: &'static str,
    /// Loads the kernels of a plan, for all ranks of this process.
    pub open: fn(&PlanFile<'_>) -> Result<Box<dyn Engine>, Failure>,
    /// What is known of a plan's kernels before they run, in words.
    pub check: fn(&PlanFile<'_>) -> Result<String, Failure>,
    /// Why `--trace` shows nothing of it, and what does.
    pub untraced: Option<(&'static str, &'static str)>,
}

impl Backend {
    pub fn of(header: &Header) -> Result<&'static Self, Failure> {
        let family = header.target.split('-').next();
        BACKENDS.iter().find(|backend| family == Some(backend.family)).ok_or_else(|| {
            let families = BACKENDS.iter().map(|backend| backend.family).collect::<Vec<_>>().join(", ");
            let what =
                format!("the plan was compiled for {}, and this program runs plans for {families}", header.target);
            Failure::new(what).help("compile the plan with `mmc compile --target cpu`")
        })
    }
}

/// Kernels that were loaded.
pub trait Engine: Send + Sync {
    fn executor(
        &self,
        plan: &Verified,
        communicator: Option<Arc<dyn Communicator>>,
        options: &Options,
        patience: Duration,
    ) -> Result<Executor, Failure>;
}
