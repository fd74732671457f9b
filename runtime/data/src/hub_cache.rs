//! A hub's cache of a model, `models--ORG--NAME`: `refs` name a revision, `snapshots` hold its files as links.

use std::fs;
use std::path::{Path, PathBuf};

use crate::DataError;
use crate::data_file::DataFile;

/// A reference holds the name of a revision.
const LONGEST_REFERENCE: usize = 4096;

/// The snapshot that the cache's main reference names, or its only one; a folder that is no cache is its own.
pub fn snapshot(folder: &Path) -> Result<PathBuf, DataError> {
    let snapshots = folder.join("snapshots");
    if !snapshots.is_dir() {
        return Ok(folder.into());
    }
    let reference = DataFile::whole(&folder.join("refs/main"), LONGEST_REFERENCE).ok();
    let reference = reference.as_deref().map(String::from_utf8_lossy);
    let entries = fs::read_dir(&snapshots).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.map_err(|e| DataError::file(&snapshots, e))?;
    let folders = entries.iter().filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    match types::hub_snapshot(reference.as_deref(), &names) {
        Ok(name) => Ok(snapshots.join(name)),
        Err(unclear) => {
            Err(DataError::Refused { what: format!("{} {}", folder.display(), unclear.what), help: unclear.help })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_reference_names_the_snapshot() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |path: &str| folder.path().join(path);
        assert_eq!(snapshot(folder.path()).expect("itself"), folder.path());
        fs::create_dir_all(at("snapshots/a")).expect("made");
        assert_eq!(snapshot(folder.path()).expect("the only one"), at("snapshots/a"));
        fs::create_dir_all(at("snapshots/b")).expect("made");
        let error = snapshot(folder.path()).expect_err("two");
        assert!(error.help().is_some_and(|help| help.contains("snapshots: a, b")), "{error}");
        fs::create_dir_all(at("refs")).expect("made");
        fs::write(at("refs/main"), "b\n").expect("written");
        assert_eq!(snapshot(folder.path()).expect("named"), at("snapshots/b"));
    }
}
