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
    if let Ok(name) = DataFile::whole(&folder.join("refs/main"), LONGEST_REFERENCE) {
        let named = snapshots.join(String::from_utf8_lossy(&name).trim());
        if named.is_dir() {
            return Ok(named);
        }
    }
    let entries = fs::read_dir(&snapshots).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.map_err(|e| DataError::file(&snapshots, e))?;
    let mut found: Vec<PathBuf> = entries.into_iter().map(|e| e.path()).filter(|path| path.is_dir()).collect();
    found.sort();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        several => {
            let names: Vec<_> = several.iter().map(|path| path.display().to_string()).collect();
            Err(DataError::Mismatch {
                what: format!("{} is a hub's cache, and refs/main names none of its snapshots", folder.display()),
                problems: Vec::new(),
                help: Some(match names.as_slice() {
                    [] => "it has none: download the model again".into(),
                    names => format!("give one of them: {}", names.join(", ")),
                }),
            })
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
        assert!(
            error.help().is_some_and(|help| help.contains("snapshots/a") && help.contains("snapshots/b")),
            "{error}"
        );
        fs::create_dir_all(at("refs")).expect("made");
        fs::write(at("refs/main"), "b\n").expect("written");
        assert_eq!(snapshot(folder.path()).expect("named"), at("snapshots/b"));
    }
}
