//! The plan verifier: every index points at something, lives fit the arena, reads follow writes, and **no races**.
//!
//! The last one is a theorem about each class of ranks. An instruction happens before another if it comes earlier on the
//! same lane, or if a record after the first is waited for before the second, or through a chain of these. Walking the
//! instructions in schedule order, each lane keeps a clock: for every lane, how far it is known to be done. An interval map
//! over the arena keeps the last write of each byte and the reads since; every access must find these in its clock.
//! Comparing with the last write is enough, since that one was itself compared with all before it.

mod lives;
mod races;
mod structure;

pub use structure::structure;

use crate::violation::Findings;
use crate::{Plan, Violation};

/// Proves the plan, or says what is wrong with it.
pub fn verify(plan: &Plan) -> Result<(), Vec<Violation>> {
    structure(plan)?;
    let mut findings = Findings::new();
    for program in &plan.programs {
        for (class, body) in plan.classes.iter().zip(&program.bodies) {
            findings.scope = format!("{}, {}", program.name, class.name);
            lives::check(plan, class, body, &mut findings);
            races::check(plan, class, body, &mut findings);
        }
    }
    findings.into_result()
}
