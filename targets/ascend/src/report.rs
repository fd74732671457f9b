//! What became of each operator of a kernel: which operators of CANN, and why it was taken apart where it was.

use std::collections::BTreeMap;

use plan::operators::{Report, Row, add};
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

#[derive(Debug, thiserror::Error)]
#[error("the plan's report of its operators does not read: {0}")]
pub struct ReportError(#[from] serde_json::Error);

pub fn to_bytes(report: &Report) -> Vec<u8> {
    serde_json::to_vec(report).unwrap_or_default()
}

pub fn from_bytes(bytes: &[u8]) -> Result<Report, ReportError> {
    Ok(serde_json::from_slice(bytes)?)
}
