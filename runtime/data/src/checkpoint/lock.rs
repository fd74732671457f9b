//! The one writer of a folder: a file that stays locked while its process lives, and that says which process that is.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::DataError;
use crate::data_file::DataFile;

const NAME: &str = "lock";
/// A lock holds the name of a host.
const LONGEST: usize = 4096;

/// Held until it is dropped, which removes the file. The system releases the lock of a process that is killed, and the
/// next one takes the file over.
pub(super) struct Lock {
    path: PathBuf,
    file: File,
}

#[derive(Serialize, Deserialize)]
struct Owner {
    host: String,
    pid: u32,
}

impl Lock {
    pub fn take(folder: &Path) -> Result<Self, DataError> {
        let path = folder.join(NAME);
        let file = |e| DataError::file(&path, e);
        loop {
            let mut options = File::options();
            let lock = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(file)?;
            let mut locked = false;
            match lock.try_lock() {
                Ok(()) => locked = true,
                Err(TryLockError::WouldBlock) => return Err(taken(folder, owner(&path))),
                // Some network file systems have no locks. There, the word of the owner counts.
                Err(TryLockError::Error(e)) if is_unsupported(&e) => match owner(&path) {
                    Some(owner) if owner.may_live() => return Err(taken(folder, Some(owner))),
                    _ => {}
                },
                Err(TryLockError::Error(e)) => return Err(file(e)),
            }
            // The owner before may have removed the file after it was opened here.
            if is_at(&lock, &path) {
                let mut lock = Self { path: path.clone(), file: lock };
                match write(&mut lock.file, &Owner { host: host(), pid: std::process::id() }).map_err(file) {
                    // Where the system holds the lock, the word of its owner is for others to read only.
                    Err(error) if !(locked && error.is_full()) => return Err(error),
                    _ => return Ok(lock),
                }
            }
        }
    }
}

impl Lock {
    /// Whether the file still lies under its name, so that others find it.
    pub fn is_there(&self) -> bool {
        is_at(&self.file, &self.path)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A file that stays is taken over. Under the name of one that went may lie the lock of another run.
        if self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Owner {
    /// False if it is known to be gone; of processes on other hosts nothing is known.
    fn may_live(&self) -> bool {
        self.host != host() || Path::new(&format!("/proc/{}", self.pid)).exists()
    }
}

/// A name for temporary files that no other process uses.
pub(super) fn unique(name: &str, attempt: u64) -> String {
    format!("{name}.tmp-{}-{}-{attempt}", host(), std::process::id())
}

fn is_unsupported(error: &io::Error) -> bool {
    /// What NFS without its lock service says.
    const ENOLCK: i32 = 37;
    error.kind() == ErrorKind::Unsupported || error.raw_os_error() == Some(ENOLCK)
}

fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    if name.is_empty() { "localhost".into() } else { name }
}

fn owner(path: &Path) -> Option<Owner> {
    serde_json::from_slice(&DataFile::whole(path, LONGEST).ok()?).ok()
}

fn write(file: &mut File, owner: &Owner) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(&serde_json::to_vec(owner)?)
}

/// Whether what is open is what lies under a name.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

fn taken(folder: &Path, owner: Option<Owner>) -> DataError {
    let who = owner.map_or("another run".into(), |o| format!("process {} on {}", o.pid, o.host));
    DataError::Refused {
        what: format!("{}: {who} writes its checkpoints to this folder", folder.display()),
        help: format!(
            "wait until it has ended, or save to another folder; if it is gone, remove {}",
            folder.join(NAME).display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_writer() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(NAME);
        let lock = Lock::take(folder.path()).expect("free");
        let owner = owner(&path).expect("an owner");
        assert_eq!(owner.pid, std::process::id());
        assert!(owner.may_live());
        let refused = Lock::take(folder.path()).err().expect("refused").to_string();
        assert!(refused.contains(&format!("process {} on ", owner.pid)), "{refused}");
        drop(lock);
        assert!(!path.exists());
        // What a killed process left.
        fs::write(&path, r#"{"host":"h","pid":1}"#).expect("written");
        drop(Lock::take(folder.path()).expect("taken over"));
        assert!(!Owner { host: host(), pid: u32::MAX }.may_live());
        assert!(Owner { host: "another".into(), pid: u32::MAX }.may_live());
    }
}
