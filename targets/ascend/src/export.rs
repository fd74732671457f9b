//! A plan as files for CANN: segments, the commands that compile them, a manifest, and a rank table to fill in.

mod manifest;
mod rank_table;

use plan::{Archive, ArchiveError, BlobKind, Plan};

pub use self::rank_table::{Host, HostError};
use crate::soc::{Soc, soc};

/// A file of the exported folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Relative to the folder.
    pub path: String,
    pub bytes: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("the plan was compiled for {0}, and only plans for Ascend have segments")]
    Target(String),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("the plan has no graph for its kernel {0}: it was packed already")]
    Packed(String),
    #[error("the graph of {segment} does not decode: {reason}")]
    Graph { segment: String, reason: prost::DecodeError },
    #[error(transparent)]
    Hosts(#[from] HostError),
    #[error("the manifest cannot be written: {0}")]
    Json(#[from] serde_json::Error),
}

/// The processor that a plan is for.
pub fn soc_of(plan: &Plan) -> Result<&'static Soc, ExportError> {
    soc(&plan.header.target).ok_or_else(|| ExportError::Target(plan.header.target.to_string()))
}

/// How atc compiles a segment, run in the exported folder. `origin` keeps the types that the graph says: by default atc
/// would turn f32 and bf16 into f16.
pub fn atc(soc: &Soc, symbol: &str) -> String {
    format!(
        "atc --framework=1 --model={} --output=om/{symbol} --soc_version={} --precision_mode_v2=origin",
        air(symbol),
        soc.version
    )
}

fn air(symbol: &str) -> String {
    format!("segments/{symbol}.air")
}

/// All files of a plan. Without hosts, the rank table has as many made-up servers as the ranks fill.
pub fn files(plan: &Plan, hash: &str, hosts: &[Host]) -> Result<Vec<File>, ExportError> {
    let soc = soc_of(plan)?;
    let archive = Archive::from_bytes(&plan.object)?;
    let mut files = vec![];
    let mut script = "#!/bin/sh\n# Compiles every segment; needs CANN's toolkit and operators, and no device.\n\
                      set -e\ncd \"$(dirname \"$0\")\"\nmkdir -p om\n"
        .to_owned();
    for kernel in &plan.kernels {
        let blob = archive.blob(BlobKind::Air, &kernel.symbol);
        let blob = blob.ok_or_else(|| ExportError::Packed(kernel.symbol.to_string()))?;
        files.push(File { path: air(&kernel.symbol), bytes: blob.bytes.clone() });
        script += &atc(soc, &kernel.symbol);
        script.push('\n');
    }
    let manifest = manifest::manifest(plan, hash, soc, &archive)?;
    let table = rank_table::table(plan.header.world(), soc.series, hosts)?;
    files.push(File { path: "manifest.json".into(), bytes: json(&manifest)? });
    files.push(File { path: "rank_table.json".into(), bytes: json(&table)? });
    files.push(File { path: "compile.sh".into(), bytes: script.into_bytes() });
    Ok(files)
}

fn json(value: &serde_json::Value) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}
