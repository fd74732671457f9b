//! Files of a dataset that are open: a few of many, since a process may not hold as many as a folder has.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::DataError;
use crate::data_file::DataFile;

/// Well below the usual limit of 1,024 for a process.
const MOST: usize = 64;

/// The ones used last are at the end.
#[derive(Default)]
pub struct OpenFiles(Mutex<Vec<(usize, Arc<DataFile>)>>);

impl OpenFiles {
    /// File number `number`, which had `bytes` when it was indexed.
    pub fn get(&self, number: usize, path: &Path, bytes: u64) -> Result<Arc<DataFile>, DataError> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = open.iter().rposition(|(n, _)| *n == number) {
            let entry = open.remove(at);
            let file = entry.1.clone();
            open.push(entry);
            return Ok(file);
        }
        drop(open);
        let file = Arc::new(DataFile::open(path)?);
        file.is_still(bytes)?;
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= MOST {
            open.remove(0);
        }
        open.push((number, file.clone()));
        Ok(file)
    }
}
