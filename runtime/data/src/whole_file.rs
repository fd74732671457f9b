//! A file that appears whole or not at all: written under a temporary name beside its place, and renamed. What is no
//! regular file (a pipe, a device) is written through, and links are followed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Where a file is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WholeFile {
    /// A place for a regular file, without links.
    Regular(PathBuf),
    /// What takes bytes as they come.
    Through(PathBuf),
}

/// As many links as the system follows.
const MOST_LINKS: usize = 40;

impl WholeFile {
    pub fn at(path: &Path) -> io::Result<Self> {
        let mut at = path.to_path_buf();
        for _ in 0..MOST_LINKS {
            let about = match fs::symlink_metadata(&at) {
                Ok(about) => about,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::Regular(at)),
                Err(e) => return Err(e),
            };
            let kind = about.file_type();
            if kind.is_symlink() {
                let folder = folder(&at);
                // An open file of this process, such as /dev/stdout.
                if folder.starts_with("/proc") || folder.starts_with("/dev/fd") {
                    return Ok(Self::Through(path.into()));
                }
                at = folder.join(fs::read_link(&at)?);
            } else if kind.is_dir() {
                return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a folder, and a file is to be written"));
            } else if kind.is_socket() {
                return Err(io::Error::other("is a socket, and a file or a pipe is to be written"));
            } else if kind.is_file() {
                return Ok(Self::Regular(at));
            } else {
                return Ok(Self::Through(path.into()));
            }
        }
        Err(io::Error::other("too many links"))
    }

    /// Finds now what would keep the file from being written.
    pub fn probe(&self) -> io::Result<()> {
        match self {
            Self::Regular(path) => temporary(path).and_then(NamedTempFile::close),
            // A pipe would wait for its reader.
            Self::Through(path) if fs::metadata(path).is_ok_and(|m| m.file_type().is_fifo()) => Ok(()),
            Self::Through(path) => File::options().append(true).open(path).map(drop),
        }
    }

    /// A temporary file that takes the place of the file when it is persisted, and goes when it is dropped.
    pub fn temporary(&self) -> io::Result<Option<NamedTempFile>> {
        match self {
            Self::Regular(path) => temporary(path).map(Some),
            Self::Through(_) => Ok(None),
        }
    }

    pub fn path(&self) -> &Path {
        match self {
            Self::Regular(path) | Self::Through(path) => path,
        }
    }
}

fn temporary(path: &Path) -> io::Result<NamedTempFile> {
    // As the umask has it, or as the file is that it replaces.
    let mode = fs::metadata(path).map_or(0o666, |m| m.permissions().mode() & 0o7777);
    let made = tempfile::Builder::new().permissions(fs::Permissions::from_mode(mode)).tempfile_in(folder(path));
    made.map_err(|e| system(&e).unwrap_or(e))
}

/// The system's own error, without the temporary name, which says nothing to anyone.
fn system(error: &io::Error) -> Option<io::Error> {
    let within = std::error::Error::source(error)?.downcast_ref::<io::Error>()?;
    within.raw_os_error().map(io::Error::from_raw_os_error)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_and_devices_written_through() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("sub")).expect("made");
        symlink("sub/there", at("dangling")).expect("linked");
        symlink("dangling", at("twice")).expect("linked");
        symlink("round", at("round")).expect("linked");
        symlink("/dev/null", at("null")).expect("linked");
        assert_eq!(WholeFile::at(&at("twice")).expect("a place"), WholeFile::Regular(at("sub/there")));
        assert_eq!(WholeFile::at(&at("null")).expect("a place"), WholeFile::Through(at("null")));
        assert_eq!(WholeFile::at(&at("new")).expect("a place"), WholeFile::Regular(at("new")));
        assert!(WholeFile::at(&at("round")).is_err());
        assert!(WholeFile::at(dir.path()).is_err());
        assert!(WholeFile::at(&at("none/new")).expect("a place").probe().is_err());
        WholeFile::at(&at("twice")).expect("a place").probe().expect("can be written");
        assert_eq!(fs::read_dir(at("sub")).expect("a folder").count(), 0);
    }
}
