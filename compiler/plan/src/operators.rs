//! What became of each operator of a model in a target that has operators of its own; a plan carries it in a blob.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Operators of a kernel that became the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Row {
    pub op: String,
    pub dtype: String,
    /// Operators of CANN in the order in which they stand, each once; constants and views left out.
    pub cann: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub count: u64,
}

/// The rows of every kernel, by its symbol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub kernels: BTreeMap<String, Vec<Row>>,
}

impl Report {
    /// All kernels' rows together, each once, `times` saying how often a kernel runs.
    pub fn merged(&self, times: impl Fn(&str) -> u64) -> Vec<Row> {
        let mut rows = vec![];
        for (kernel, own) in &self.kernels {
            let n = times(kernel);
            own.iter().filter(|_| n > 0).for_each(|r| add(&mut rows, Row { count: r.count * n, ..r.clone() }));
        }
        rows.sort();
        rows
    }
}

/// Counts `row` among `rows`, which are equal but for their counts.
pub fn add(rows: &mut Vec<Row>, row: Row) {
    let same = |r: &&mut Row| (&r.op, &r.dtype, &r.cann, &r.reason) == (&row.op, &row.dtype, &row.cann, &row.reason);
    match rows.iter_mut().find(same) {
        Some(known) => known.count += row.count,
        None => rows.push(row),
    }
}
