//! The bytes of a plan's file: read, since a mapping would end the process by a signal when the file shrinks.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

pub fn image(path: &Path) -> io::Result<Vec<u8>> {
    let about = fs::metadata(path)?;
    if about.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a folder"));
    }
    // A pipe would wait for somebody who writes into it.
    if !about.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is no regular file"));
    }
    let mut bytes = Vec::new();
    let most = about.len().saturating_add(1);
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == about.len() {
        return Ok(bytes);
    }
    Err(io::Error::other(format!("the file changed while it was read: it had {} bytes", about.len())))
}
