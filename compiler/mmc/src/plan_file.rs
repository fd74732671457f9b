//! Reading a plan from its file.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use diag::{Diagnostic, Diagnostics};
use plan::{Plan, ReadError};

/// A plan and the hash of its file.
pub struct Read {
    pub plan: Plan,
    pub hash: String,
}

/// So many bytes say whether it is a plan, and how long.
const HEAD: u64 = 64;
/// A plan that comes through a pipe: the code of the largest models takes a small part of it.
const MOST_PIPED: u64 = 4 << 30;

pub fn read(path: &Path) -> Result<Read, Diagnostics> {
    let bytes = bytes(path).map_err(|fault| match fault {
        Fault::File(e) => Diagnostic::error(format!("cannot read the plan {}: {e}", path.display()))
            .help("`mmc compile MODEL.mm -o FILE` writes one"),
        Fault::Plan(e) => damaged(path, &e),
    })?;
    let (plan, hash) = Plan::from_bytes(&bytes).map_err(|e| damaged(path, &e))?;
    Ok(Read { plan, hash: hash.to_string() })
}

enum Fault {
    File(std::io::Error),
    Plan(ReadError),
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::File(error)
    }
}

/// The file's bytes. What does not begin as a plan is not read to its end, which it may not have.
fn bytes(path: &Path) -> Result<Vec<u8>, Fault> {
    let mut file = File::open(path)?;
    let about = file.metadata()?;
    let mut bytes = Vec::new();
    file.by_ref().take(HEAD).read_to_end(&mut bytes)?;
    let want = match Plan::from_bytes(&bytes) {
        Err(ReadError::Truncated { want, .. }) => want,
        Err(error) => return Err(Fault::Plan(error)),
        Ok(_) => return Ok(bytes),
    };
    if about.is_file() {
        let have = about.len();
        if have > want {
            return Err(Fault::Plan(ReadError::TooLong(have - want)));
        }
        bytes.try_reserve_exact(usize::try_from(have).unwrap_or(usize::MAX)).map_err(std::io::Error::from)?;
    }
    let most = if about.is_file() { want } else { want.min(MOST_PIPED) };
    // One more, so that a longer one is found to be longer.
    file.take(most.saturating_sub(HEAD).saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn damaged(path: &Path, error: &ReadError) -> Diagnostic {
    Diagnostic::error(format!("{}: {error}", path.display())).help("compile the plan again with `mmc compile`")
}

/// Refuses to write a plan whose proofs fail.
pub fn verify(plan: &Plan) -> Result<(), Diagnostics> {
    let _span = tracing::info_span!("verify").entered();
    plan::verify(plan).map_err(|violations| {
        let mut error = Diagnostic::internal("the plan failed its verification, so it was not written");
        for violation in violations.iter().take(5) {
            error = error.note(violation.to_string());
        }
        error.into()
    })
}

#[cfg(test)]
mod tests {
    use plan::sample;

    use super::*;

    #[test]
    fn only_what_begins_as_a_plan_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("p");
        let (good, hash) = sample::grid().to_bytes().expect("bytes");
        std::fs::write(&path, &good).expect("written");
        assert_eq!(read(&path).map(|read| read.hash).ok(), Some(hash.to_string()));
        let said = |path: &Path| read(path).err().map(|e| e.0[0].message.clone()).unwrap_or_default();
        assert!(said(Path::new("/dev/zero")).contains("no plan file"), "{}", said(Path::new("/dev/zero")));
        std::fs::write(&path, &good[..good.len() - 1]).expect("written");
        assert!(said(&path).contains(&good.len().to_string()), "{}", said(&path));
        // A hole of a tebibyte behind it is not read.
        std::fs::write(&path, &good).expect("written");
        let file = File::options().write(true).open(&path).expect("opens");
        file.set_len(1 << 40).expect("a hole");
        assert_eq!(said(&path), format!("{}: {}", path.display(), ReadError::TooLong((1 << 40) - good.len() as u64)));
        std::fs::write(&path, &good[..40]).expect("written");
        assert!(!said(&path).is_empty());
    }
}
