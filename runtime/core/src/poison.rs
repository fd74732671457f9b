//! Poison: a buffer is overwritten with NaN as soon as all instructions that touch it are done, so that whoever reads it
//! later without an order shows in the results.
#![allow(unsafe_code, reason = "what is overwritten is memory that nobody uses any more")]

use std::sync::atomic::{AtomicU32, Ordering};

use plan::{Body, Class, Life, Plan, Space};

use crate::arena::Arena;

/// Of one program.
pub struct Poison {
    /// By instruction: the buffers that it touches.
    touched: Vec<Vec<u32>>,
    buffers: Vec<Doomed>,
}

struct Doomed {
    space: Space,
    at: u64,
    bytes: u64,
    /// Number of instructions that touch it.
    touches: u32,
    /// Number of those that are not done in this run.
    left: AtomicU32,
}

impl Poison {
    pub fn new(plan: &Plan, class: &Class, body: &Body) -> Self {
        let first = class.persistent.len();
        let doomed = |b: &plan::Buffer| Doomed {
            space: b.space,
            at: b.offset,
            bytes: b.bytes,
            touches: 0,
            left: AtomicU32::new(0),
        };
        let mut buffers: Vec<Doomed> = body.buffers.iter().map(doomed).collect();
        let mut touched = vec![];
        for instruction in &body.instructions {
            let slices = instruction.op.touches(|kernel| &plan.kernels[kernel.index()].args);
            let own = slices.iter().filter_map(|(slice, _)| slice.buffer.index().checked_sub(first));
            let mut own: Vec<u32> =
                own.filter(|&b| body.buffers[b].life != Life::Persistent).map(|b| b as u32).collect();
            own.sort_unstable();
            own.dedup();
            own.iter().for_each(|&b| buffers[b as usize].touches += 1);
            touched.push(own);
        }
        buffers.iter_mut().for_each(|b| b.left = AtomicU32::new(b.touches));
        Self { touched, buffers }
    }

    /// Overwrites what this instruction was the last to touch. Its lane goes on afterwards, so that whatever takes the
    /// place of a buffer, which the plan orders after all that touch it, is not there yet.
    pub fn done<'a>(&self, arena: impl Fn(Space) -> &'a Arena, index: u32) {
        for &buffer in &self.touched[index as usize] {
            let buffer = &self.buffers[buffer as usize];
            if buffer.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                buffer.left.store(buffer.touches, Ordering::Relaxed);
                // SAFETY: all that touch the buffer are done, and what takes its place waits for this lane, by the verifier.
                unsafe { arena(buffer.space).write(buffer.at, buffer.bytes) }.fill(0xFF);
            }
        }
    }
}
