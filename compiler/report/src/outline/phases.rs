//! Phases of a program's instructions, as the plan has them.

use plan::{Body, Phase};

/// By class and instruction. Where there are no gradients, all is forward.
pub fn phases<'b>(bodies: impl Iterator<Item = &'b Body> + Clone) -> Vec<Vec<Phase>> {
    let mut all = bodies.clone().flat_map(|body| &body.instructions);
    let trains = all.any(|i| i.origin.phase == Phase::Backward);
    let phase = |i: &plan::Instruction| if trains { i.origin.phase } else { Phase::Forward };
    bodies.map(|body| body.instructions.iter().map(phase).collect()).collect()
}
