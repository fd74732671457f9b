//! Reading a plan from its file.

use std::path::Path;

use diag::{Diagnostic, Diagnostics};
use plan::Plan;

/// A plan and the hash of its file.
pub struct Read {
    pub plan: Plan,
    pub hash: String,
}

pub fn read(path: &Path) -> Result<Read, Diagnostics> {
    let bytes = std::fs::read(path).map_err(|e| {
        Diagnostic::error(format!("cannot read the plan {}: {e}", path.display()))
            .help("`mmc compile MODEL.mm -o FILE` writes one")
    })?;
    let (plan, hash) = Plan::from_bytes(&bytes).map_err(|e| {
        Diagnostic::error(format!("{}: {e}", path.display())).help("compile the plan again with `mmc compile`")
    })?;
    Ok(Read { plan, hash: hash.to_string() })
}
