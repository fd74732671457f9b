//! The plan verifier: every index points at something, lives fit the arena, reads follow writes, **no races**, **no hangs**.
//!
//! Of several programs over one arena:
//! - feeds and emits are those of the program that names them;
//! - no program touches a buffer of another residency than its own, nor the bytes that residencies share with a buffer of
//!   its own, so what one residency left there never shows (`structure`, `lives`);
//! - each prepared value is written by one program that prepares, and that program follows from parameters alone
//!   (`prepared`).
//!
//! The last two rules above are theorems about each class of ranks. `rendezvous` states the second; here is the first. An instruction
//! happens before another if it comes earlier on the same lane, or if a record after the first is waited for before the
//! second, or through a chain of these. Walking the instructions in schedule order, each lane keeps a clock: for every
//! lane, how far it is known to be done. An interval map over the arena keeps the last write of each byte and the reads
//! since; every access must find these in its clock. Comparing with the last write is enough, since that one was itself
//! compared with all before it.

mod collectives;
#[cfg(feature = "sample")]
mod expanded;
mod lives;
mod prepared;
mod races;
mod ragged;
mod rendezvous;
mod standstill;
mod structure;
mod verified;

pub use collectives::fault as collective_fault;
#[cfg(feature = "sample")]
pub use expanded::hangs_of_all_ranks;
pub use structure::structure;
pub use verified::Verified;

use std::panic::resume_unwind;
use std::thread;

use types::Name;

use crate::violation::Findings;
use crate::{Plan, Program, Scope, Violation};

/// What was proven of one program for one class of ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    pub program: Name,
    pub class: Name,
    pub instructions: usize,
    pub buffers: usize,
    pub lanes: usize,
    /// Reads and writes of slices that were followed.
    pub accesses: u64,
    /// Conflicting accesses of different instructions that were found to be ordered, each compared with the latest
    /// before it.
    pub ordered: u64,
    /// Collectives and messages of the program that were found to meet, over all classes, and never in a circle.
    pub meetings: usize,
}

/// Proves the plan, or says what is wrong with it.
pub fn verify(plan: &Plan) -> Result<(), Vec<Violation>> {
    prove(plan).map(|_| ())
}

/// Like [`verify`], and tells what was proven.
pub fn prove(plan: &Plan) -> Result<Vec<Proof>, Vec<Violation>> {
    structure(plan)?;
    let mut findings = Findings::new();
    lives::of_residencies(plan, &mut findings);
    prepared::check(plan, &mut findings);
    let meetings = rendezvous::check(plan, &mut findings);
    let mut proofs = Vec::new();
    for (program, meetings) in plan.programs.iter().zip(meetings) {
        for (proof, found) in of_classes(plan, program, meetings) {
            proofs.push(proof);
            findings.append(found);
        }
    }
    findings.into_result().map(|()| proofs)
}

/// Of one program, what is proven of each class by itself: all at the same time.
fn of_classes(plan: &Plan, program: &Program, meetings: usize) -> Vec<(Proof, Findings)> {
    let check = |scope: Scope<'_>| {
        let Scope { class, body, .. } = scope;
        let mut findings = Findings::new();
        findings.scope = format!("{}, {}", program.name, class.name);
        lives::check(scope, &mut findings);
        let (accesses, ordered) = races::check(scope, &mut findings);
        let proof = Proof {
            program: program.name.clone(),
            class: class.name.clone(),
            instructions: body.instructions.len(),
            buffers: scope.present().count() + body.buffers.len(),
            lanes: body.lanes.len(),
            accesses,
            ordered,
            meetings,
        };
        (proof, findings)
    };
    thread::scope(|scope| {
        let checks: Vec<_> = plan.scopes_of(program).map(|class| scope.spawn(move || check(class))).collect();
        let ends = checks.into_iter().map(thread::ScopedJoinHandle::join);
        ends.map(|end| end.unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}
