//! Kernels of attention and of its gradient.

use ir::{Function, NodeId};

use super::{LowerError, Needs, Pointers};
use crate::cpu::Cpu;
use crate::emit::{Emitter, Kernel};

pub struct Plan {}

impl Plan {
    pub fn forward(_: &Function, _: NodeId, _: &ir::ops::Attention, _: &Cpu) -> Result<Plan, LowerError> {
        Err(LowerError::new("no code for attention"))
    }

    pub fn backward(_: &Function, _: NodeId, _: &ir::ops::AttentionGrad, _: &Cpu) -> Result<Plan, LowerError> {
        Err(LowerError::new("no code for attention"))
    }

    pub fn needs(&self) -> Needs {
        Needs::default()
    }

    pub fn emit(&self, _: &mut Emitter, _: &Kernel, _: &Function, _: &Pointers) -> Result<(), LowerError> {
        Ok(())
    }
}
