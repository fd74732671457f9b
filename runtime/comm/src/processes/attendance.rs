//! Attendance: who has come to a collective that a rank runs, as far as that rank can tell.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::{Operation, Waiting};

pub struct Attendance {
    id: u32,
    group: Vec<usize>,
    running: AtomicBool,
    /// By position in the group.
    here: Vec<AtomicBool>,
}

impl Attendance {
    pub fn new(operation: &Operation) -> Self {
        let group = operation.group.clone();
        let here = group.iter().map(|_| AtomicBool::new(true)).collect();
        Self { id: operation.id, group, running: AtomicBool::new(false), here }
    }

    pub fn group(&self) -> &[usize] {
        &self.group
    }

    /// This rank begins to wait for those at `positions`.
    pub fn begin(&self, positions: impl Iterator<Item = usize>) {
        positions.for_each(|p| self.here[p].store(false, Relaxed));
        self.running.store(true, Relaxed);
    }

    pub fn came(&self, position: usize) {
        self.here[position].store(true, Relaxed);
    }

    pub fn end(&self) {
        self.running.store(false, Relaxed);
    }

    /// What this rank waits for, if it does; `tell` gives the operator of a collective.
    pub fn waiting(&self, tell: impl FnOnce(u32) -> String) -> Option<Waiting> {
        let running = self.running.load(Relaxed);
        let missing: Vec<usize> =
            self.group.iter().zip(&self.here).filter(|(_, here)| !here.load(Relaxed)).map(|(rank, _)| *rank).collect();
        let (id, group) = (self.id, self.group.clone());
        (running && !missing.is_empty()).then(|| Waiting { id: Some(id), what: tell(id), group, missing })
    }
}
