//! Ascend: segments that CANN compiled, on one NPU for each rank.

use std::sync::Arc;
use std::time::Duration;

use comm::Communicator;
use device::ascend::{AscendCommunicator, AscendDevice, Cann, Segments, SegmentsError};
use plan::Verified;
use runtime_core::{Executor, Options};

use super::{Backend, Engine};
use crate::failure::Failure;

pub const BACKEND: Backend = Backend {
    family: "ascend",
    open: |file| {
        let plan = &file.plan;
        // What is wrong with the plan is said before what is wrong with the machine.
        let segments = Arc::new(Segments::open(&plan.kernels, file.object)?);
        Ok(Box::new(Npus { cann: Cann::open(plan.header.world() > 1)?, segments }))
    },
    check: |file| match Segments::open(&file.plan.kernels, file.object) {
        Ok(_) => Ok(format!("all {} segments are there, as CANN compiled them", file.plan.kernels.len())),
        Err(e @ SegmentsError::NotCompiled(_)) => Ok(e.to_string()),
        Err(e) => Err(e.into()),
    },
    untraced: Some(("--trace shows the lanes of the CPU, and this plan runs on NPUs", "trace it with CANN's msprof")),
};

struct Npus {
    cann: Arc<Cann>,
    segments: Arc<Segments>,
}

impl Engine for Npus {
    fn executor(
        &self,
        plan: &Verified,
        communicator: Option<Arc<dyn Communicator>>,
        options: &Options,
        patience: Duration,
    ) -> Result<Executor, Failure> {
        let rank = communicator.as_ref().map_or(0, |c| c.rank());
        let made = || -> Result<_, Failure> {
            let (cann, segments) = (self.cann.clone(), self.segments.clone());
            let device = Arc::new(AscendDevice::new(cann, plan.plan(), rank, segments, patience)?);
            let group = |others| AscendCommunicator::new(device.clone(), plan.plan(), others);
            let group = communicator.clone().map(group).transpose()?;
            Ok((device, group.map(|group| Arc::new(group) as Arc<dyn Communicator>)))
        };
        let made = made();
        if let (Err(failure), Some(communicator)) = (&made, &communicator) {
            communicator.fail(failure.message());
        }
        let (device, group) = made?;
        Ok(Executor::on(plan, device, group, options)?)
    }
}
