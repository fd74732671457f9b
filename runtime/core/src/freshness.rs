//! Which prepared values are out of date: a program that prepares runs again after what it reads was written.

use std::collections::BTreeSet;

use plan::{Access, Plan};
use types::{Name, Runs};

/// The same on all ranks of a plan: what one class writes counts for all.
pub struct Freshness {
    /// By program: the parameters and states that it reads and writes, on any class.
    reads: Vec<BTreeSet<Name>>,
    writes: Vec<BTreeSet<Name>>,
    /// By program: whether it prepares values, and must before others run.
    stale: Vec<bool>,
    prepares: Vec<bool>,
}

impl Freshness {
    /// Nothing is prepared yet.
    pub fn new(plan: &Plan) -> Self {
        let prepares: Vec<bool> = plan.programs.iter().map(|p| p.runs == Runs::Prepare).collect();
        let touched = |how: fn(Access) -> bool| {
            let of = |program: &plan::Program| {
                let scopes = plan.scopes_of(program);
                let slices = scopes.flat_map(|scope| {
                    let ops = scope.body.instructions.iter().flat_map(|i| i.op.slices(|k| plan.accesses(k)));
                    ops.filter_map(move |(slice, access)| {
                        let buffer = scope.class.persistent.get(slice.buffer.index())?;
                        how(access).then(|| buffer.name.clone())
                    })
                });
                slices.collect()
            };
            // A plan that prepares nothing needs none of it.
            if prepares.contains(&true) { plan.programs.iter().map(of).collect() } else { vec![] }
        };
        Self { reads: touched(Access::reads), writes: touched(Access::writes), stale: prepares.clone(), prepares }
    }

    /// The next program that must run before any other.
    pub fn next(&self) -> Option<usize> {
        self.stale.iter().position(|stale| *stale)
    }

    /// A program has run.
    pub fn ran(&mut self, program: usize) {
        self.stale[program] = false;
        let Some(writes) = self.writes.get(program).filter(|writes| !writes.is_empty()) else { return };
        for (p, reads) in self.reads.iter().enumerate() {
            self.stale[p] |= p != program && self.prepares[p] && !reads.is_disjoint(writes);
        }
    }

    /// The host has written a parameter or a state.
    pub fn written(&mut self) {
        self.stale.clone_from(&self.prepares);
    }
}
