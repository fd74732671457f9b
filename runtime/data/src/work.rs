//! Long work on files, part by part: after each, other processes hear that this one is not stuck.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes that any disk reads, writes or hashes in seconds.
pub const PART: usize = 64 << 20;

/// Bytes after which a file is synced: all of a large file in the end would take longer than others wait.
const SYNC: usize = 512 << 20;

/// A file into which much is written.
pub struct Sink<'a> {
    file: &'a File,
    /// Bytes that may not be on disk yet.
    unsynced: usize,
}

impl<'a> Sink<'a> {
    pub fn new(file: &'a File) -> Self {
        Self { file, unsynced: 0 }
    }

    pub fn write(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        for (i, part) in bytes.chunks(PART).enumerate() {
            self.file.write_all_at(part, at + (i * PART) as u64)?;
            self.unsynced += part.len();
            if self.unsynced >= SYNC {
                self.file.sync_data()?;
                self.unsynced = 0;
            }
            comm::worked();
        }
        Ok(())
    }
}

/// Fills `out` from a file.
pub fn read(file: &File, at: u64, out: &mut [u8]) -> io::Result<()> {
    for (i, part) in out.chunks_mut(PART).enumerate() {
        file.read_exact_at(part, at + (i * PART) as u64)?;
        comm::worked();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_the_whole() {
        let file = tempfile::tempfile().expect("a file");
        let mut bytes = vec![7; PART + 7];
        (bytes[0], bytes[PART - 1], bytes[PART]) = (1, 2, 3);
        Sink::new(&file).write(&bytes, 3).expect("written");
        let mut back = vec![0; bytes.len()];
        read(&file, 3, &mut back).expect("read");
        assert!(back == bytes);
        assert_eq!(read(&file, 4, &mut back).expect_err("past the end").kind(), io::ErrorKind::UnexpectedEof);
    }
}
