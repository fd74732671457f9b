//! The CPU: the plan's shared object, called by the threads of this process.

use std::sync::Arc;
use std::time::Duration;

use comm::Communicator;
use device::CpuKernels;
use plan::Verified;
use runtime_core::{Executor, Options};

use super::{Backend, Engine};
use crate::failure::Failure;

pub const BACKEND: Backend = Backend {
    family: "cpu",
    open: |file| {
        let plan = &file.plan;
        Ok(Box::new(Arc::new(CpuKernels::load(&plan.header, &plan.kernels, file.object)?)))
    },
    check: |file| {
        let plan = &file.plan;
        CpuKernels::load(&plan.header, &plan.kernels, file.object)?;
        Ok(format!("all {} load, and this machine has the features they need", plan.kernels.len()))
    },
    untraced: None,
};

impl Engine for Arc<CpuKernels> {
    fn executor(
        &self,
        plan: &Verified,
        communicator: Option<Arc<dyn Communicator>>,
        options: &Options,
        _: Duration,
    ) -> Result<Executor, Failure> {
        Ok(Executor::new(plan, self.clone(), communicator, options)?)
    }
}
