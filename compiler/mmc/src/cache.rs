//! `--cache DIR`: a folder of compiled kernels that may be shared, and deleted at any time.

use std::io::Write;
use std::path::{Path, PathBuf};

use diag::{Diagnostic, Diagnostics};
use target_cpu::cache::Cache;

use crate::input;

/// Bytes of the checksum that a file starts with.
const CHECKSUM: usize = 32;

pub struct Folder(PathBuf);

impl Folder {
    /// A folder that exists from now on.
    pub fn open(path: &Path) -> Result<Folder, Diagnostics> {
        std::fs::create_dir_all(path).map_err(|e| {
            Diagnostic::error(format!("cannot keep compiled kernels in {}: {e}", path.display()))
                .help("name a folder that can be written with --cache, or leave it out")
        })?;
        Ok(Folder(path.to_owned()))
    }

    fn place(&self, key: &str) -> PathBuf {
        self.0.join(format!("{key}.o"))
    }
}

impl Cache for Folder {
    fn read(&self, key: &str) -> Option<Vec<u8>> {
        let file = input::bytes(&self.place(key), input::MOST_CODE).ok()?;
        let (sum, object) = file.split_at_checked(CHECKSUM)?;
        (blake3::hash(object).as_bytes() == sum).then(|| object.to_vec())
    }

    /// Whole or not at all: others may read and write the same folder.
    fn write(&self, key: &str, object: &[u8]) -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
        file.write_all(blake3::hash(object).as_bytes())?;
        file.write_all(object)?;
        file.persist(self.place(key))?;
        Ok(())
    }
}
