//! Room for the next checkpoint: how many bytes it needs, how many the disk has, and which older checkpoints go for it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use types::TensorType;

use super::folder::{Folder, in_order, steps};
use super::{Checkpoint, discard};
use crate::DataError;

/// What files and folders take beside the tensors.
const FRAME: u64 = 16 << 10;
/// What the header of a file takes for a tensor, beside its name.
const ENTRY: u64 = 128;

/// What the system counts the room of files in.
const BLOCK: u64 = 512;

/// A disk without room for the next checkpoint: the bytes that are left, and the checkpoints that may go.
struct Lack {
    free: u64,
    surplus: Vec<Surplus>,
}

struct Surplus {
    name: String,
    bytes: u64,
}

/// About how many bytes a checkpoint of these tensors takes.
pub fn needed<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a TensorType)>) -> u64 {
    tensors.into_iter().map(|(name, ty)| ty.bytes() as u64 + name.len() as u64 + ENTRY).sum::<u64>() + FRAME
}

impl Folder {
    /// Proves that a checkpoint of `step` can be written, as far as that is known: at once, or in the room of those that go
    /// for it.
    pub(super) fn has_room(&self, step: u64, keep: usize) -> Result<(), DataError> {
        self.lacking(step, keep).map(drop)
    }

    /// Removes older checkpoints until the next one fits, the oldest first. If it does not fit without all of them, none
    /// goes.
    pub(super) fn make_room(&self, step: u64, keep: usize) -> Result<(), DataError> {
        let Some(Lack { mut free, surplus }) = self.lacking(step, keep)? else { return Ok(()) };
        for Surplus { name, bytes } in surplus {
            discard(&self.path, &name)?;
            free += bytes;
            if free >= self.need {
                break;
            }
        }
        Ok(())
    }

    /// None if the next checkpoint fits, an error if nothing helps.
    fn lacking(&self, step: u64, keep: usize) -> Result<Option<Lack>, DataError> {
        let probe = match self.probe() {
            Err(error) if !error.is_full() => return Err(error),
            probe => probe.is_ok(),
        };
        let free = self.free();
        if probe && free.is_none_or(|free| free >= self.need) {
            return Ok(None);
        }
        let (surplus, free) = (self.surplus(step, keep)?, free.unwrap_or(0));
        let more: u64 = surplus.iter().map(|s| s.bytes).sum();
        if surplus.is_empty() || free + more < self.need { Err(self.full()) } else { Ok(Some(Lack { free, surplus })) }
    }

    /// Removes the oldest checkpoint that may go, after a save that found the disk full; false if there is none.
    pub(super) fn make_more_room(&self, step: u64, keep: usize) -> Result<bool, DataError> {
        let Some(Surplus { name, .. }) = self.surplus(step, keep)?.into_iter().next() else { return Ok(false) };
        discard(&self.path, &name)?;
        Ok(true)
    }

    /// The checkpoints that a save of `step` would remove behind it and that are older than the latest good one, oldest
    /// first. So the latest good one stays whatever becomes of the save.
    fn surplus(&self, step: u64, keep: usize) -> Result<Vec<Surplus>, DataError> {
        let replaced = self.replaced();
        let good = in_order(&self.path)?.into_iter().find(|name| Checkpoint::open(&self.path.join(name)).is_ok());
        let all = steps(&self.path)?;
        let Some(at) = all.iter().position(|(_, name)| Some(name) == good.as_ref()) else { return Ok(Vec::new()) };
        let (last, _) = all[at];
        let own = all.iter().filter(|(number, name)| *number <= step && !replaced.contains(name));
        let kept: Vec<&String> = own.rev().take(keep.saturating_sub(1)).map(|(_, name)| name).collect();
        let goes = |(number, name): &&(u64, String)| {
            *number < last && (*number < step || replaced.contains(name)) && !kept.contains(&name)
        };
        let of = |name: &String| Surplus { name: name.clone(), bytes: size(&self.path.join(name)) };
        Ok(all.iter().filter(goes).map(|(_, name)| of(name)).collect())
    }

    /// Bytes that the disk has left for this process; None if it does not tell.
    fn free(&self) -> Option<u64> {
        let about = rustix::fs::statvfs(&self.path).ok()?;
        // Some file systems tell no sizes at all.
        let free = (about.f_blocks > 0).then(|| about.f_bavail.saturating_mul(about.f_frsize));
        match self.within {
            Some(most) => Some(most.saturating_sub(size(&self.path)).min(free.unwrap_or(u64::MAX))),
            None => free,
        }
    }

    /// What there is to say where the disk is full.
    pub(super) fn full(&self) -> DataError {
        DataError::Full { path: self.path.clone(), need: self.need, free: self.free() }
    }
}

/// The bytes on disk of the files in a folder and the folders in it.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let one = |entry: fs::DirEntry| match entry.metadata() {
        Ok(about) if about.is_dir() => size(&entry.path()),
        Ok(about) => about.blocks() * BLOCK,
        Err(_) => 0,
    };
    entries.map(one).sum()
}
