//! A file mapped into memory for reading.
#![allow(unsafe_code, reason = "mapping a file is unsafe: another process could change it")]

use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

pub struct Mapped(Option<Mmap>);

impl Mapped {
    pub fn open(path: &Path) -> io::Result<Self> {
        let about = fs::metadata(path)?;
        if about.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a folder"));
        }
        // A pipe would wait for somebody who writes into it.
        if !about.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "is no regular file"));
        }
        let file = File::open(path)?;
        let about = file.metadata()?;
        // An empty file cannot be mapped.
        if about.len() == 0 {
            return Ok(Self(None));
        }
        // SAFETY: plans, weights and data are files that nobody rewrites in place while a program runs from them; our own
        // writers only ever rename finished files over old ones.
        Ok(Self(Some(unsafe { Mmap::map(&file)? })))
    }
}

impl Deref for Mapped {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or(&[])
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self
    }
}
