//! The two binaries, as a user would call them.

use std::path::PathBuf;
use std::process::Command;

use libtest_mimic::Failed;

/// The binary beside this test's own folder; `make test` builds it first.
pub fn command(name: &str) -> Command {
    let test = std::env::current_exe().expect("a test knows where it is");
    let folder = test.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps");
    let path: PathBuf = folder.join(name);
    assert!(path.is_file(), "{} is missing: run `cargo build -p mmc -p mmrun` first", path.display());
    Command::new(path)
}

/// Runs to the end; a failure shows what was said.
pub fn run(mut command: Command) -> Result<(), Failed> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}\n{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        .into())
}
