//! What became of each operator of a kernel: which operators of CANN, and why it was taken apart where it was.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::DType;

use crate::table::Op;

/// An operator of a kernel.
#[derive(Clone, Debug)]
pub struct Origin {
    pub op: &'static str,
    /// Its node in the kernel.
    pub node: usize,
    /// Element type of its first operand.
    pub dtype: DType,
    /// Why it was taken apart.
    pub reason: Option<&'static str>,
}

impl Origin {
    /// Begins the names of its nodes.
    pub fn label(&self) -> String {
        format!("{}_{}", self.op, self.node)
    }
}

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

/// `nodes`: the origin and operator of each node that is written, once for each origin that uses it.
pub fn rows(origins: &[Origin], nodes: impl IntoIterator<Item = (usize, Op)>) -> Vec<Row> {
    let mut made: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (origin, op) in nodes {
        let names = made.entry(origin).or_default();
        let shown = !matches!(op, Op::Const | Op::Data | Op::NetOutput | Op::Reshape);
        if shown && !names.iter().any(|n| n == op.name()) {
            names.push(op.name().to_owned());
        }
    }
    let mut rows: Vec<Row> = vec![];
    for (i, origin) in origins.iter().enumerate() {
        let Some(cann) = made.get(&i).filter(|names| !names.is_empty()) else { continue };
        add(
            &mut rows,
            Row {
                op: origin.op.into(),
                dtype: origin.dtype.name().into(),
                cann: cann.clone(),
                reason: origin.reason.map(Into::into),
                count: 1,
            },
        );
    }
    rows.sort();
    rows
}

/// Counts `row` among `rows`, which are equal but for their counts.
pub fn add(rows: &mut Vec<Row>, row: Row) {
    let same = |r: &&mut Row| (&r.op, &r.dtype, &r.cann, &r.reason) == (&row.op, &row.dtype, &row.cann, &row.reason);
    match rows.iter_mut().find(same) {
        Some(known) => known.count += row.count,
        None => rows.push(row),
    }
}

/// The rows of every kernel, by its symbol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub kernels: BTreeMap<String, Vec<Row>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the plan's report of its operators does not read: {0}")]
pub struct ReportError(#[from] serde_json::Error);

impl Report {
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ReportError> {
        Ok(serde_json::from_slice(bytes)?)
    }

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
