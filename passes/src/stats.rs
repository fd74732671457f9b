//! What a run of passes did: time, sizes, and counts that each pass chooses.

use std::time::Duration;

use indexmap::IndexMap;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// One for each step that ran, in order.
    pub passes: Vec<PassStats>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassStats {
    pub pass: String,
    pub elapsed: Duration,
    /// Of the whole module, after the pass.
    pub functions: usize,
    pub nodes: usize,
    /// In the order in which the pass first counted them.
    pub counts: IndexMap<String, u64>,
}

impl Stats {
    /// Adds `n` to a count of the running pass.
    pub fn count(&mut self, what: &str, n: u64) {
        let Some(pass) = self.passes.last_mut() else { return };
        match pass.counts.get_mut(what) {
            Some(count) => *count += n,
            None => {
                pass.counts.insert(what.into(), n);
            }
        }
    }
}
