//! `mmc` and `mmrun` as a user calls them.

use std::path::PathBuf;
use std::process::{Command, Output};

/// The binary beside the running test's own folder; `make test` builds it first.
///
/// # Panics
/// If it is not built.
pub fn command(name: &str) -> Command {
    let test = std::env::current_exe().expect("a test knows where it is");
    let folder = test.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps");
    let path: PathBuf = folder.join(name);
    assert!(path.is_file(), "{} is missing: run `cargo build -p mmc -p mmrun` first", path.display());
    Command::new(path)
}

/// The folder of the published models.
pub fn model(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models").join(name)
}

/// Runs to the end; a failure is what the program said.
pub fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(output);
    }
    let said = [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b).into_owned());
    Err(format!("{command:?} failed:\n{}{}", said[0], said[1]))
}
