//! A folder of checkpoints: which are there, which is the latest good one, and the right to write to it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::lock::{Lock, is_at, unique};
use super::{Checkpoint, discard, remove, sync, trainer, write_synced};
use crate::data_file::DataFile;
use crate::{DataError, Together};

const LATEST: &str = "latest";
/// It holds the name of a checkpoint.
const LONGEST_NAME: usize = 4096;

/// A folder that this run alone writes checkpoints to.
pub struct Folder {
    pub(super) path: PathBuf,
    /// Of the first process.
    lock: Mutex<Option<Held>>,
    /// Whether this run made the folder.
    made: bool,
    /// Saves that were begun.
    pub(super) attempts: AtomicU64,
    /// Checkpoints of another run, which go when this run has its first.
    replaced: Mutex<Vec<String>>,
    /// Bytes that a checkpoint takes.
    pub(super) need: u64,
    /// Bytes that there are for the folder, if fewer than the disk has.
    pub(super) within: Option<u64>,
}

/// The lock of a folder, and the folder itself: while it is open, no other gets its number.
struct Held {
    lock: Lock,
    folder: File,
}

impl Held {
    fn take(path: &Path) -> Result<Self, DataError> {
        let folder = File::open(path).map_err(|e| DataError::file(path, e))?;
        Ok(Self { lock: Lock::take(path)?, folder })
    }
}

/// What a run has to do with the checkpoints that are in its folder already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Nothing: a folder with checkpoints is refused.
    Fresh,
    /// The first that it writes replaces them all.
    Over,
    /// It goes on from one of them.
    GoOn,
}

impl Folder {
    /// Makes the folder if need be, locks it, and removes what interrupted saves left; a checkpoint will take `need` bytes.
    /// All processes of a run call it.
    pub fn open(path: &Path, begin: Begin, need: u64, together: &Together) -> Result<Self, DataError> {
        let mut folder = Self {
            path: path.into(),
            lock: Mutex::default(),
            made: false,
            attempts: AtomicU64::new(0),
            replaced: Mutex::default(),
            need,
            within: None,
        };
        let own = if together.is_first() { folder.take(begin) } else { Ok(()) };
        let own = own.map_err(|error| if error.is_full() { folder.full() } else { error });
        together.agree(&format!("take the folder {}", path.display()), own.map(|()| Vec::new()))?;
        Ok(folder)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A checkpoint will take so many bytes.
    pub fn needing(mut self, bytes: u64) -> Self {
        self.need = bytes;
        self
    }

    fn take(&mut self, begin: Begin) -> Result<(), DataError> {
        let path = &self.path;
        self.made = !path.exists();
        fs::create_dir_all(path).map_err(|e| DataError::file(path, e))?;
        self.lock = Mutex::new(Some(Held::take(path)?));
        let old = steps(path)?;
        match (begin, old.last()) {
            (Begin::Fresh, Some((_, last))) => {
                return Err(DataError::Refused {
                    what: format!("{}: there are checkpoints of a run, {last} and others", path.display()),
                    help: "--resume auto goes on with that run, --save-over replaces it".into(),
                });
            }
            (Begin::Over, _) => self.replaced = Mutex::new(old.into_iter().map(|(_, name)| name).collect()),
            _ => {}
        }
        sweep(path)?;
        if path.join(LATEST).is_dir() {
            let latest = path.join(LATEST);
            return Err(DataError::Refused {
                what: format!(
                    "{}: a folder, where the name of the latest checkpoint is to be written",
                    latest.display()
                ),
                help: "move it away, or give --save another folder".into(),
            });
        }
        // A place that cannot be written to is found now. A full disk is told once it is known that there is anything to
        // save, and what may go for it.
        self.probe().or_else(|error| if error.is_full() { Ok(()) } else { Err(error) })
    }

    /// Makes and removes a folder, as a save does.
    pub(super) fn probe(&self) -> Result<(), DataError> {
        let probe = self.path.join(unique("step-probe", 0));
        fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).map_err(|e| DataError::file(&self.path, e))
    }

    /// Makes sure that the folder is still that of this run. One that was removed is made again; one that another run has
    /// written to since is left alone.
    pub(super) fn hold(&self) -> Result<(), DataError> {
        let (path, mut held) = (&self.path, self.lock.lock().unwrap_or_else(PoisonError::into_inner));
        if held.as_ref().is_some_and(|held| held.lock.is_there()) {
            return Ok(());
        }
        fs::create_dir_all(path).map_err(|e| DataError::file(path, e))?;
        let new = Held::take(path)?;
        let is_other = held.as_ref().is_none_or(|held| !is_at(&held.folder, path));
        if let Some((_, last)) = steps(path)?.last().filter(|_| is_other) {
            return Err(DataError::Refused {
                what: format!("{}: another folder by now, with checkpoints of another run, {last}", path.display()),
                help: "do not move or remove the folder of a run that goes on".into(),
            });
        }
        *held = Some(new);
        Ok(())
    }

    /// Takes the disk to have no more than so many bytes for the folder.
    pub fn within(mut self, bytes: u64) -> Self {
        self.within = Some(bytes);
        self
    }

    /// Proves that there is room for a checkpoint of a step after `step`, as far as that is known. All processes call it.
    pub fn check_room(&self, step: u64, keep: usize, together: &Together) -> Result<(), DataError> {
        let own = if together.is_first() { self.has_room(step + 1, keep) } else { Ok(()) };
        together.agree(&format!("look for room in {}", self.path.display()), own.map(|()| Vec::new())).map(drop)
    }

    /// Gives a finished folder its name and points at it.
    pub(super) fn show(&self, name: &str, temporary: &Path) -> Result<(), DataError> {
        let folder = self.path.join(name);
        let rename = |from: &Path, to: &Path| fs::rename(from, to).map_err(|e| DataError::file(to, e));
        // First what needs room, so that a disk that is full by now leaves everything as it was.
        let pointer = self.path.join(unique(LATEST, 0));
        let shown = write_synced(&pointer, format!("{name}\n").as_bytes()).and_then(|()| {
            self.put(&folder, temporary)?;
            sync(&self.path)?;
            rename(&pointer, &self.path.join(LATEST))
        });
        if shown.is_err() {
            let _ = fs::remove_file(&pointer);
        }
        shown?;
        sync(&self.path)
    }

    /// Gives a finished folder its name.
    fn put(&self, folder: &Path, temporary: &Path) -> Result<(), DataError> {
        let rename = |from: &Path, to: &Path| fs::rename(from, to).map_err(|e| DataError::file(to, e));
        if folder.is_dir() {
            // A run that was resumed from before this step writes it again. The old one steps aside first, since a folder
            // does not replace a folder.
            let old = folder.with_extension("old");
            remove(&old)?;
            rename(folder, &old)?;
            rename(temporary, folder)?;
            remove(&old)
        } else {
            rename(temporary, folder)
        }
    }

    /// Removes all checkpoints but the newest `keep` up to `step`, which was just saved. Those of later steps are of
    /// another way that a run went, and stay.
    pub fn prune(&self, step: u64, keep: usize) -> Result<(), DataError> {
        let replaced = std::mem::take(&mut *self.replaced());
        let mut names: Vec<String> = steps(&self.path)?
            .into_iter()
            .filter(|(number, name)| *number != step && replaced.contains(name))
            .map(|(_, name)| name)
            .collect();
        let own = steps(&self.path)?.into_iter().rev().filter(|(n, name)| *n <= step && !names.contains(name));
        let surplus: Vec<String> = own.skip(keep).map(|(_, name)| name).collect();
        names.extend(surplus);
        names.iter().try_for_each(|name| discard(&self.path, name))
    }

    pub(super) fn replaced(&self) -> MutexGuard<'_, Vec<String>> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        *self.lock.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        if self.made {
            // Only an empty one goes: a run that is refused leaves nothing.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// The latest good checkpoint of a directory, or the checkpoint that the path itself is. Damaged ones are passed over,
/// and come back with the reason.
pub fn latest(path: &Path) -> Result<(Checkpoint, Vec<DataError>), DataError> {
    if trainer(path).exists() {
        return Ok((Checkpoint::open(path)?, Vec::new()));
    }
    let mut damaged = Vec::new();
    for name in in_order(path)? {
        match Checkpoint::open(&path.join(name)) {
            Ok(checkpoint) => return Ok((checkpoint, damaged)),
            Err(error) => damaged.push(error),
        }
    }
    match damaged.into_iter().next() {
        Some(error) => Err(DataError::Refused {
            what: format!("{error}; {} has no other checkpoint that is whole", path.display()),
            help: "go on from another folder with --resume DIR, or begin anew in this one with --save-over".into(),
        }),
        None => Err(DataError::Refused {
            what: format!("{}: there is no checkpoint in this folder", path.display()),
            help: "--resume auto begins where there is none".into(),
        }),
    }
}

/// Whether there is a checkpoint in a folder, good or damaged; a folder that is not there has none.
pub fn has_checkpoints(path: &Path) -> Result<bool, DataError> {
    Ok(path.is_dir() && !steps(path)?.is_empty())
}

/// The names of a folder's checkpoints, the one to go on from first. The pointer says which one was finished last: a run
/// that was resumed from an older step may have gone another way than the later steps that are still there.
pub(super) fn in_order(path: &Path) -> Result<Vec<String>, DataError> {
    let pointed = DataFile::whole(&path.join(LATEST), LONGEST_NAME).unwrap_or_default();
    let pointed = String::from_utf8_lossy(&pointed);
    let pointed = pointed.trim();
    let mut steps = steps(path)?;
    steps.reverse();
    let at = steps.iter().find(|(_, name)| name == pointed).map(|(number, _)| *number);
    steps.sort_by_key(|(number, name)| (name != pointed, at.is_some_and(|at| *number > at)));
    Ok(steps.into_iter().map(|(_, name)| name).collect())
}

/// The folders of steps, ascending; `.old` is what a save that was interrupted between its two renames leaves.
pub(super) fn steps(path: &Path) -> Result<Vec<(u64, String)>, DataError> {
    let entries = fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.map_err(|e| DataError::file(path, e))?;
    let folders = entries.iter().filter(|e| e.path().is_dir());
    let names = folders.map(|e| e.file_name().to_string_lossy().into_owned());
    let mut steps: Vec<_> = names
        .filter_map(|name| {
            let number = name.strip_prefix("step-")?;
            Some((number.strip_suffix(".old").unwrap_or(number).parse().ok()?, name))
        })
        .collect();
    steps.sort_unstable_by(|a, b| (a.0, a.1.ends_with(".old")).cmp(&(b.0, b.1.ends_with(".old"))).reverse());
    steps.reverse();
    Ok(steps)
}

/// Removes what interrupted saves left. What cannot be removed does no harm.
fn sweep(path: &Path) -> Result<(), DataError> {
    let entries = fs::read_dir(path).map_err(|e| DataError::file(path, e))?;
    for entry in entries.flatten() {
        let (name, at) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        let whole = name.strip_suffix(".old").filter(|n| n.starts_with("step-")).map(|n| path.join(n));
        let _ = match whole {
            Some(whole) if whole.exists() => fs::remove_dir_all(&at),
            Some(whole) => fs::rename(&at, whole),
            None if name.starts_with("step-") && name.contains(".tmp") => fs::remove_dir_all(&at),
            None if name.starts_with("latest.tmp") => fs::remove_file(&at),
            None => Ok(()),
        };
    }
    Ok(())
}
