//! A file that is read by position: one that shrinks meanwhile is an error with its name, where a mapping would end the
//! process by a signal.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::{DataError, work};

#[derive(Debug)]
pub struct DataFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl DataFile {
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let about = fs::metadata(path).map_err(|e| dangling(path, e))?;
        // A pipe would wait for somebody who writes into it.
        if about.is_dir() || !about.is_file() {
            let what = if about.is_dir() { "is a folder, and a file is needed" } else { "is no regular file" };
            return Err(DataError::format(path, what));
        }
        let file = File::open(path).map_err(|e| DataError::file(path, e))?;
        let bytes = file.metadata().map_err(|e| DataError::file(path, e))?.len();
        Ok(Self { path: path.into(), file, bytes })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size when it was opened.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Fills `out` with the bytes that begin at `at`.
    pub fn read(&self, at: u64, out: &mut [u8]) -> Result<(), DataError> {
        work::read(&self.file, at, out).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => {
                let now = self.file.metadata().map_or(0, |about| about.len());
                let (end, had) = (at.saturating_add(out.len() as u64), self.bytes);
                let what = match now < had {
                    true => format!("the file shrank while it was read: it had {had} bytes, and has {now} now"),
                    false => format!("{end} bytes are needed, and the file has {now}"),
                };
                DataError::format(&self.path, what)
            }
            _ => DataError::file(&self.path, e),
        })
    }

    /// Proves that the file still has the size that it had when it was indexed.
    pub fn is_still(&self, bytes: u64) -> Result<(), DataError> {
        let now = self.file.metadata().map_err(|e| DataError::file(&self.path, e))?.len();
        if now == bytes {
            return Ok(());
        }
        let what = format!("the file changed: it had {bytes} bytes when it was indexed, and has {now} now");
        Err(DataError::format(&self.path, what))
    }

    /// The first bytes, as many of `most` as there are.
    pub fn head(&self, at: u64, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; most.min(usize::try_from(self.bytes.saturating_sub(at)).unwrap_or(most))];
        if self.read(at, &mut bytes).is_err() {
            bytes.clear();
        }
        bytes
    }

    /// The blake3 hash of the whole file.
    pub fn hash(&self) -> Result<blake3::Hash, DataError> {
        let (mut hasher, mut piece) = (blake3::Hasher::new(), vec![0; 1 << 20]);
        let mut at = 0;
        while at < self.bytes {
            let length = usize::try_from(self.bytes - at).map_or(piece.len(), |left| left.min(piece.len()));
            self.read(at, &mut piece[..length])?;
            hasher.update(&piece[..length]);
            at += length as u64;
        }
        Ok(hasher.finalize())
    }

    /// The whole file, which must not be longer than `most` bytes.
    pub fn whole(path: &Path, most: usize) -> Result<Vec<u8>, DataError> {
        let file = Self::open(path)?;
        let bytes = usize::try_from(file.bytes).ok().filter(|b| *b <= most);
        let bytes = bytes.ok_or_else(|| {
            DataError::format(path, format!("has {} bytes, and such a file has {most} at most", file.bytes))
        })?;
        let mut out = vec![0; bytes];
        file.read(0, &mut out)?;
        Ok(out)
    }
}

/// What cannot be opened, or the link that leads to nothing.
fn dangling(path: &Path, error: io::Error) -> DataError {
    match fs::read_link(path) {
        Ok(target) if error.kind() == io::ErrorKind::NotFound => {
            DataError::format(path, format!("is a link to {}, which is not there", target.display()))
        }
        _ => DataError::file(path, error),
    }
}

/// A place in a file, for readers of streams.
pub struct Cursor<'f> {
    file: &'f DataFile,
    at: u64,
}

impl<'f> Cursor<'f> {
    pub fn new(file: &'f DataFile) -> Self {
        Self { file, at: 0 }
    }
}

impl io::Read for Cursor<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.file.file.read_at(out, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl io::Seek for Cursor<'_> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let at = match to {
            io::SeekFrom::Start(at) => Some(at),
            io::SeekFrom::End(by) => self.file.bytes.checked_add_signed(by),
            io::SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_shrinks_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        fs::write(&path, [7; 100]).expect("written");
        let file = DataFile::open(&path).expect("opens");
        let mut out = [0; 40];
        file.read(60, &mut out).expect("all there");
        assert_eq!(out, [7; 40]);
        fs::write(&path, [7; 70]).expect("cut");
        let error = file.read(60, &mut out).expect_err("gone").to_string();
        assert!(error.contains("x: the file shrank while it was read: it had 100 bytes, and has 70 now"), "{error}");
        assert!(DataFile::open(folder.path()).expect_err("a folder").to_string().contains("is a folder"));
        std::os::unix::fs::symlink("nowhere", folder.path().join("link")).expect("linked");
        let error = DataFile::open(&folder.path().join("link")).expect_err("dangling").to_string();
        assert!(error.contains("is a link to nowhere, which is not there"), "{error}");
        assert_eq!(DataFile::open(&path).expect("opens").hash().expect("read"), blake3::hash(&[7; 70]));
        assert!(DataFile::whole(&path, 69).is_err());
        assert_eq!(DataFile::whole(&path, 70).expect("read").len(), 70);
    }
}
